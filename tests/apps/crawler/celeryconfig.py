task_default_queue = "crawler"
worker_prefetch_multiplier = 4
result_expires = 600
