"""What can be done with finished masks: run lengths, polygons, small regions, overlap."""
