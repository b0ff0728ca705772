"""The rows of a published table trained on one's own copy of the data, beside the numbers that were published."""
