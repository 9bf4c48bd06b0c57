"""Accuracy of models on images with masks: prompts, detections, everything mode."""
