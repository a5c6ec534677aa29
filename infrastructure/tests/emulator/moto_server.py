"""moto's server, with what the AWS provider asks of it and moto does not have. Arguments as moto_server has them."""

import json
import os

os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse as AutoScaling  # noqa: E402
from moto.server import main  # noqa: E402

# Tags of scalable targets, by ARN. moto answers 500 to questions about them, which the provider repeats for many minutes.
TAGS: dict[str, dict[str, str]] = {}
register = AutoScaling.register_scalable_target


def register_with_tags(self: AutoScaling) -> str:
    answer = register(self)
    TAGS.setdefault(json.loads(answer)["ScalableTargetARN"], {}).update(self._get_param("Tags") or {})
    return answer


def list_tags(self: AutoScaling) -> str:
    return json.dumps({"Tags": TAGS.get(self._get_param("ResourceARN"), {})})


AutoScaling.register_scalable_target = register_with_tags
AutoScaling.list_tags_for_resource = list_tags

if __name__ == "__main__":
    main()
