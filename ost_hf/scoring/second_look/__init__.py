"""A second look at every row, by proxies that have learnt from what the first look found."""
