"""Errors of calibration; the message of each is one line that says what to do."""


class CalibrationError(ValueError):
    """The image set or the graph cannot be calibrated."""
