"""What knows nothing of pruning: errors, checks of options, files that appear whole, progress."""
