"""Studies: each plans runs, computes numbers from them that are kept on disk, and draws those without training."""

from counterpoise.studies.base import Given, Picture, Row, Study, Trained
from counterpoise.studies.conduct import combine, conduct
from counterpoise.studies.pages import STUDIES, draw_again, study_named

__all__ = ["STUDIES", "Given", "Picture", "Row", "Study", "Trained", "combine", "conduct", "draw_again", "study_named"]
