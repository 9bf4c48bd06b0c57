"""Labels of a prompt's points, as the decoder takes them. The manifest lists them for programs in other languages."""

NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, PADDING, ABSENT = 0, 1, 2, 3, -1, -2

LABELS = {
    "positive": POSITIVE,
    "negative": NEGATIVE,
    "box_top_left": BOX_TOP_LEFT,
    "box_bottom_right": BOX_BOTTOM_RIGHT,
    "padding": PADDING,
    "absent": ABSENT,
}
"""A prompt without a box needs one padding point, as in SAM. An absent slot is masked out of attention: it fills up a
signature of fixed size and changes nothing."""
