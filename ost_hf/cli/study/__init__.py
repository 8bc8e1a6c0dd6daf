"""``ost-hf study``: settings x methods x keep ratios x protocols x seeds, from one YAML to tables and a plot."""
