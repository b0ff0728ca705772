"""Studies: each plans runs, computes numbers from them that are kept on disk, and draws those without training."""
