"""params.yaml as strict, frozen models.

One model per DVC stage, so that a stage can name exactly the parameters that it depends on.
Unknown keys are refused; an error says key, expected and got.
"""

from samif.config.data import CocoSource, DataProtocol, DatasetParams, DrawnParams, ReadRules, ShotSource
from samif.config.digest import digest
from samif.config.encoders import SHIPPED, EmbedParams, EncoderParams, SemanticParams, StoredAs
from samif.config.learning import (
    EvaluateParams,
    FeaturePart,
    IncrementalParams,
    Name,
    PretrainDecoderParams,
    ProposeParams,
    SessionParams,
    TrainBaseParams,
)
from samif.config.params import BASE, RESERVED_CLASSES, Params, load_params
from samif.config.registry import GatesParams, Limits, RegistryParams
from samif.config.strict import Strict
from samif.config.watch import WatchParams

__all__ = [
    "BASE",
    "RESERVED_CLASSES",
    "SHIPPED",
    "CocoSource",
    "DataProtocol",
    "DatasetParams",
    "DrawnParams",
    "EmbedParams",
    "EncoderParams",
    "EvaluateParams",
    "FeaturePart",
    "GatesParams",
    "IncrementalParams",
    "Limits",
    "Name",
    "Params",
    "PretrainDecoderParams",
    "ProposeParams",
    "ReadRules",
    "RegistryParams",
    "SemanticParams",
    "SessionParams",
    "ShotSource",
    "StoredAs",
    "Strict",
    "TrainBaseParams",
    "WatchParams",
    "digest",
    "load_params",
]
