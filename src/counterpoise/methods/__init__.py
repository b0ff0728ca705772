"""Training methods. ``__all__`` is the registry: what is listed has a table row and runs by name."""

from counterpoise.methods.aggregated import Aggregated
from counterpoise.methods.agm import AGM
from counterpoise.methods.amco import AMCo
from counterpoise.methods.aug import AUG
from counterpoise.methods.bss import BSS
from counterpoise.methods.cml import CML
from counterpoise.methods.data_remixing import DataRemixing
from counterpoise.methods.dgl import DGL
from counterpoise.methods.dimml import DIMML
from counterpoise.methods.domfn import DOMFN
from counterpoise.methods.g2d import G2D
from counterpoise.methods.gblending import GBlending
from counterpoise.methods.greedy import Greedy
from counterpoise.methods.igm import IGM
from counterpoise.methods.inforeg import InfoReg
from counterpoise.methods.iprm import IPRM
from counterpoise.methods.joint import Joint
from counterpoise.methods.lfm import LFM
from counterpoise.methods.mbsd import MBSD
from counterpoise.methods.midas import MIDAS
from counterpoise.methods.mla import MLA
from counterpoise.methods.mmcosine import MMCosine
from counterpoise.methods.mmpareto import MMPareto
from counterpoise.methods.modality_dropout import ModalityDropout
from counterpoise.methods.mses import MSES
from counterpoise.methods.mslr import MSLR
from counterpoise.methods.ogm import OGM, OGMGE
from counterpoise.methods.opm import OPM
from counterpoise.methods.pmr import PMR
from counterpoise.methods.reconboost import ReconBoost
from counterpoise.methods.relearning import ReLearning
from counterpoise.methods.smv import SMV
from counterpoise.methods.tcmax import TCMax
from counterpoise.methods.umt import UMT
from counterpoise.methods.unimodal import Unimodal

# In the order of the tables: baselines, the poster's comparison, IGM, and what others use beside them.
__all__ = [  # noqa: RUF022
    "Unimodal",
    "Joint",
    "GBlending",
    "OGM",
    "OGMGE",
    "DOMFN",
    "MSES",
    "PMR",
    "AGM",
    "MSLR",
    "ReconBoost",
    "SMV",
    "MMPareto",
    "MLA",
    "IGM",
    "OPM",
    "MMCosine",
    "UMT",
    "LFM",
    "ModalityDropout",
    "TCMax",
    "DGL",
    "CML",
    "MBSD",
    "AMCo",
    "G2D",
    "ReLearning",
    "BSS",
    "IPRM",
    "Aggregated",
    "DataRemixing",
    "InfoReg",
    "MIDAS",
    "DIMML",
    "AUG",
    "Greedy",
]
