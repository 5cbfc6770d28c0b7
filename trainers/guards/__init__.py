"""What stops or warns: non-finite losses, idle steps, failed evaluations, signals, preflight."""
