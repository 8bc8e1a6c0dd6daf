"""The tables in which the stages meet: statuses, scores, anchors, selections. pyarrow only."""
