"""`tinysam-bench`: how fast and how large, stage by stage, on the machine at hand."""
