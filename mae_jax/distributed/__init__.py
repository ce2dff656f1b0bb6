"""Multi-process runs: detects this process's place in the job, and ends all processes together."""
