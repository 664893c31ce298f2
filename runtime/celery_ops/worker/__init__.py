"""What a worker or a scheduler runs with: settings, consumer, heartbeat, and the kit's own tasks."""
