"""Examples to tokens with labels on the answers, and to padded batches."""
