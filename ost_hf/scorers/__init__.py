"""What can give a candidate a number: the ``Scorer`` protocol and one file for each scorer."""
