"""The code of every registered model, as MLflow keeps it beside the weights: it needs samif to be installed."""

from mlflow.models import set_model

from flows.registry.pyfunc_model import SamifModel

set_model(SamifModel())
