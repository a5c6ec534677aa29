#!/bin/sh
# Runs one Fargate task and waits for its end. Fails when the task could not start or ended with another exit code than 0.
set -eu
: "${CLUSTER:?}" "${TASK_DEFINITION:?}" "${SUBNETS:?}" "${SECURITY_GROUP:?}" "${LOG_GROUP:?}"
wait_seconds=${WAIT_SECONDS:-1800}

command -v aws >/dev/null || { echo "The AWS CLI (version 2) is needed to run the migration." >&2; exit 1; }

task=$(aws ecs run-task --cluster "$CLUSTER" --task-definition "$TASK_DEFINITION" --launch-type FARGATE \
  --started-by terraform --network-configuration \
  "awsvpcConfiguration={subnets=[$SUBNETS],securityGroups=[$SECURITY_GROUP],assignPublicIp=DISABLED}" \
  --query 'tasks[0].taskArn' --output text)
case $task in
arn:*) ;;
*) echo "ECS did not take the task $TASK_DEFINITION: look for failures of RunTask in CloudTrail." >&2; exit 1 ;;
esac

ask() { aws ecs describe-tasks --cluster "$CLUSTER" --tasks "$task" --query "$1" --output text; }

echo "Waiting for $task"
deadline=$(($(date +%s) + wait_seconds))
while :; do
  status=$(ask 'tasks[0].lastStatus')
  [ "$status" != STOPPED ] || break
  if [ "$(date +%s)" -ge "$deadline" ]; then
    echo "The task is still $status after $wait_seconds s. It goes on: look at it before the next apply." >&2
    exit 1
  fi
  sleep 5
done

code=$(ask 'tasks[0].containers[0].exitCode')
if [ "$code" != 0 ]; then
  echo "The task ended with exit code $code: $(ask 'tasks[0].stoppedReason')" >&2
  echo "Its log: group $LOG_GROUP, stream psp/psp/${task##*/}" >&2
  exit 1
fi
