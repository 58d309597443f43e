"""How alike two regions are, from 0 to 1, for every kind of label.

Every function compares row by row: `a[i]` with `b[i]`. The caller makes the pairs, and puts rows of unequal
length together with `ragged` and `take`. Values are finite: NaN and infinity are refused before they come.
"""

from connector.quality.similarity.answers import (
    character_error_rate,
    edit_similarity,
    interval_similarity,
    jaccard,
    kendall_tau_b,
    masi,
    normalized,
    path_similarity,
    ranking_similarity,
    same,
    same_set,
    taxonomy_similarity,
    word_error_rate,
    word_similarity,
)
from connector.quality.similarity.masks import boundary_f, boundary_iou, mask_dice, mask_iou, rasterize
from connector.quality.similarity.rle import (
    decode_brush,
    decode_coco,
    encode_brush,
    encode_coco,
    encode_coco_counts,
    from_pixels,
    to_pixels,
)
from connector.quality.similarity.rows import Ragged, offsets_of, ragged, take
from connector.quality.similarity.shapes import (
    box_iou,
    ellipse_iou,
    line_distance,
    line_similarity,
    oks,
    point_distance,
    polygon_dice,
    polygon_iou,
    rotated_box_iou,
    upright_box_iou,
)
from connector.quality.similarity.spans import span_iou, span_set_iou, token_spans, track_frames, track_iou

__all__ = [
    "Ragged",
    "boundary_f",
    "boundary_iou",
    "box_iou",
    "character_error_rate",
    "decode_brush",
    "decode_coco",
    "edit_similarity",
    "ellipse_iou",
    "encode_brush",
    "encode_coco",
    "encode_coco_counts",
    "from_pixels",
    "interval_similarity",
    "jaccard",
    "kendall_tau_b",
    "line_distance",
    "line_similarity",
    "masi",
    "mask_dice",
    "mask_iou",
    "normalized",
    "offsets_of",
    "oks",
    "path_similarity",
    "point_distance",
    "polygon_dice",
    "polygon_iou",
    "ragged",
    "ranking_similarity",
    "rasterize",
    "rotated_box_iou",
    "same",
    "same_set",
    "span_iou",
    "span_set_iou",
    "take",
    "taxonomy_similarity",
    "to_pixels",
    "token_spans",
    "track_frames",
    "track_iou",
    "upright_box_iou",
    "word_error_rate",
    "word_similarity",
]
