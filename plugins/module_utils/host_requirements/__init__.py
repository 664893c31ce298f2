"""What a host has to have; each check yields what is wrong, with the value and the line to write."""
