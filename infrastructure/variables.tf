variable "environment" {
  description = "Name of the environment. All names start with psp- and this."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,11}$", var.environment))
    error_message = "The environment is 2 to 12 lower-case letters and digits and starts with a letter, such as dev or prod."
  }
}

variable "region" {
  description = "AWS region, such as sa-east-1."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region looks like sa-east-1."
  }
}

variable "image" {
  description = "Image of psp in ECR, with a tag of its own or a digest."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/[a-z0-9._/-]+(:[\\w.-]+|@sha256:[0-9a-f]{64}|:[\\w.-]+@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "The image is in ECR and names its version, as in 123456789012.dkr.ecr.sa-east-1.amazonaws.com/psp:1.2.3; latest names none."
  }
}

# Card keys

variable "card_keys" {
  description = "PSP_CARD_KEYS: 32 random bytes in base64, separated by commas where there are several; the first seals. Needed at the first apply and where card_keys_version is new; set it as TF_VAR_card_keys."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true

  validation {
    # base64decode() refuses what is not UTF-8, so the text is looked at: 43 characters, of which the last carries 4 bits.
    condition     = var.card_keys == null ? true : alltrue([for key in split(",", var.card_keys) : can(regex("^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$", key))])
    error_message = "Each card key is 32 bytes in base64, as `openssl rand -base64 32` prints it; several are separated by commas without spaces."
  }
}

variable "card_keys_version" {
  description = "Number of the value of card_keys. To rotate, set card_keys and a number that is one higher."
  type        = number
  default     = 1

  validation {
    condition     = var.card_keys_version >= 1 && floor(var.card_keys_version) == var.card_keys_version
    error_message = "The version of the card keys is a whole number from 1."
  }
}

variable "card_key_in_kms" {
  description = "Whether the key that wraps the data keys of sealed cards is in KMS, where it stays, rather than in card_keys. Switch while no transaction is processing: what is sealed under one does not open under the other."
  type        = bool
  default     = false
}

# Payment gateway

variable "gateway" {
  description = "The payment gateway, as docs/gateway-protocol.md has it: its address, and the number of the value of gateway_secret, to be raised by one to rotate. Without, payments go through the sandbox, which charges nobody."
  type        = object({ url = string, secret_version = optional(number, 1) })
  default     = null

  validation {
    condition     = var.gateway == null ? var.environment != "prod" : startswith(var.gateway.url, "https://")
    error_message = "A gateway is at an address that starts with https://, and prod has one: the sandbox approves payments that nobody is charged for."
  }

  validation {
    condition     = var.gateway == null ? true : length(var.gateway_cidrs) > 0 || !var.interface_endpoints || var.webhooks
    error_message = "Without webhooks the worker may connect to gateway_cidrs only: name the addresses of the gateway."
  }
}

variable "gateway_secret" {
  description = "PSP_GATEWAY_SECRET: 32 characters or more that sign requests to the gateway. Needed where gateway is new and where its secret_version is; set it as TF_VAR_gateway_secret."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = var.gateway_secret == null ? true : length(var.gateway_secret) >= 32
    error_message = "The secret at the gateway has 32 characters or more, as `openssl rand -base64 32` prints them."
  }
}

variable "gateway_secrets" {
  description = "PSP_GATEWAY_SECRETS: what requests to the gateways of the database (psp gateways) are signed with, as name=secret, separated by commas. Needed where gateway_secrets_version is new; set it as TF_VAR_gateway_secrets."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true

  validation {
    condition     = var.gateway_secrets == null ? true : alltrue([for entry in split(",", var.gateway_secrets) : can(regex("^[a-z][a-z0-9_-]{0,63}=[^\\s,]{32,}$", entry))])
    error_message = "Each entry is the name of a gateway, = and a secret of 32 characters or more, as `openssl rand -base64 32` prints them; several are separated by commas without spaces."
  }

  validation {
    condition     = var.gateway_secrets == null ? true : length(distinct([for entry in split(",", var.gateway_secrets) : split("=", entry)[0]])) == length(split(",", var.gateway_secrets))
    error_message = "A gateway has one secret."
  }
}

variable "gateway_secrets_version" {
  description = "Number of the value of gateway_secrets, to be raised by one with every change of it; null where the database has no gateways that need one."
  type        = number
  default     = null

  validation {
    condition     = var.gateway_secrets_version == null ? true : var.gateway_secrets_version >= 1 && floor(var.gateway_secrets_version) == var.gateway_secrets_version
    error_message = "The version of the gateways' secrets is a whole number from 1."
  }

  validation {
    condition     = var.gateway_secrets_version == null ? true : length(var.gateway_cidrs) > 0 || !var.interface_endpoints || var.webhooks
    error_message = "Without webhooks the worker may connect to gateway_cidrs only: name the addresses of the gateways of the database, too."
  }
}

variable "callbacks" {
  description = "Where gateways call back when they have decided; null to have them asked. host_name: the public name, of which psp makes PSP_PUBLIC_URL, and under which the load balancer takes POST /callback/* and nothing else. cidrs: IPv4 ranges that reach this load balancer for that alone, where nothing in front lets callbacks through; whoever is in them gets nowhere else. certificate_arn: a certificate for the name, where one is neither issued (zone_id) nor covered by the API's."
  type        = object({ host_name = string, cidrs = optional(set(string), []), certificate_arn = optional(string) })
  default     = null

  validation {
    condition     = var.callbacks == null ? true : can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.callbacks.host_name)) && var.callbacks.host_name != var.domain_name
    error_message = "Callbacks have a host name of their own, in lower case, such as callbacks.example.com: by it the load balancer tells them from requests of customers."
  }

  validation {
    condition     = var.callbacks == null || var.gateway != null
    error_message = "Callbacks need a gateway: the sandbox, which is there where none is, believes whoever calls."
  }

  validation {
    condition     = var.callbacks == null ? true : alltrue([for cidr in var.callbacks.cidrs : can(cidrhost(cidr, 0)) && !strcontains(cidr, ":")])
    error_message = "Gateways call back from IPv4 ranges in CIDR notation."
  }

  validation {
    condition     = try(var.callbacks.certificate_arn, null) == null ? true : can(regex("^arn:[a-z-]+:acm:[a-z0-9-]+:[0-9]{12}:certificate/.+$", var.callbacks.certificate_arn))
    error_message = "The certificate of the callbacks' name is the ARN of one in ACM."
  }
}

# Network

variable "vpc_cidr" {
  description = "IPv4 range of the VPC, from /16 to /20."
  type        = string

  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && can(regex("/(16|17|18|19|20)$", var.vpc_cidr))
    error_message = "The range of the VPC is IPv4 in CIDR notation, from /16 to /20: its sixteenth part must hold the tasks of a zone."
  }
}

variable "zones" {
  description = "Names of two or three availability zones of the region. They are named rather than looked up, so that a new zone of AWS moves nothing."
  type        = list(string)

  validation {
    condition     = contains([2, 3], length(var.zones)) && length(distinct(var.zones)) == length(var.zones) && alltrue([for zone in var.zones : startswith(zone, var.region)])
    error_message = "Name two or three different availability zones of the region, such as sa-east-1a and sa-east-1b."
  }
}

variable "single_nat_gateway" {
  description = "Whether one NAT gateway serves all zones: cheaper, and without its zone there is no way out."
  type        = bool
  default     = false
}

variable "interface_endpoints" {
  description = "Whether tasks reach AWS through interface endpoints. Without, they use the NAT gateway and may connect to any address on port 443."
  type        = bool
  default     = true
}

variable "gateway_cidrs" {
  description = "IPv4 ranges of payment gateways that the worker may reach on port 443; with webhooks it may reach any."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.gateway_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "Ranges of payment gateways are IPv4 in CIDR notation, and not the whole internet."
  }
}

variable "webhooks" {
  description = "Whether merchants may have webhook endpoints: the worker may then connect to any address on port 443. psp refuses addresses that are not public, also when a name changes its address."
  type        = bool
  default     = true
}

variable "refund_fee" {
  description = "Who bears the fee of what is refunded: kept (the PSP keeps its fee) or returned."
  type        = string
  default     = "kept"

  validation {
    condition     = contains(["kept", "returned"], var.refund_fee)
    error_message = "The fee of a refund is kept or returned."
  }
}

variable "event_retention_days" {
  description = "How long events and their deliveries are kept, in days."
  type        = number
  default     = 90

  validation {
    condition     = var.event_retention_days >= 7 && var.event_retention_days <= 3650 && floor(var.event_retention_days) == var.event_retention_days
    error_message = "Events are kept for 7 to 3650 days."
  }
}

# Edge

variable "internal" {
  description = "Whether the load balancer has private addresses only."
  type        = bool
  default     = true
}

variable "allowed_cidrs" {
  description = "IPv4 ranges of the authenticating gateways in front. psp trusts the header x-customer-id: whoever is in these ranges can act as any customer."
  type        = list(string)

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : can(cidrhost(cidr, 0))])
    error_message = "Name at least one IPv4 range in CIDR notation that may reach the load balancer."
  }
}

variable "domain_name" {
  description = "Host name of the API."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain_name))
    error_message = "The host name is in lower case and has a domain, such as api.example.com."
  }
}

variable "zone_id" {
  description = "Id of the public Route 53 zone for the host name and the validation of its certificate; null where DNS is elsewhere."
  type        = string
  default     = null

  validation {
    condition     = var.zone_id == null ? var.certificate_arn != null : can(regex("^[A-Z0-9]+$", var.zone_id))
    error_message = "Set zone_id to the id of a Route 53 zone, such as Z0123456789ABCDEFGHIJ, or bring a certificate with certificate_arn."
  }
}

variable "certificate_arn" {
  description = "ARN of a certificate for the host name; null to have one issued and renewed."
  type        = string
  default     = null

  validation {
    condition     = var.certificate_arn == null ? true : can(regex("^arn:[a-z-]+:acm:[a-z0-9-]+:[0-9]{12}:certificate/.+$", var.certificate_arn))
    error_message = "certificate_arn is the ARN of a certificate in ACM."
  }
}

variable "rate_limit" {
  description = "Requests of one address within 5 minutes, beyond which it is answered 429; null for twice of what all tasks of the API are to take, as the gateway in front may be one address."
  type        = number
  default     = null

  validation {
    condition     = var.rate_limit == null ? true : var.rate_limit >= 10 && var.rate_limit <= 2000000000
    error_message = "WAF takes a limit of 10 to 2,000,000,000 requests within 5 minutes."
  }
}

# Database

variable "database" {
  description = "The database: version of Postgres, class of the instance, storage at the start and at most in GiB, connections it accepts, whether a standby is kept in another zone, and days for which backups are kept."
  type = object({
    engine_version            = string
    instance_class            = string
    allocated_storage_gib     = number
    max_allocated_storage_gib = number
    max_connections           = number
    multi_az                  = bool
    backup_retention_days     = number
  })

  validation {
    condition     = can(regex("^1[67](\\.[0-9]+)?$", var.database.engine_version))
    error_message = "psp is tested on Postgres 16 and 17."
  }

  validation {
    condition     = startswith(var.database.instance_class, "db.")
    error_message = "Classes of instances start with db., such as db.m7g.large."
  }

  validation {
    condition     = var.database.allocated_storage_gib >= 20 && var.database.max_allocated_storage_gib > var.database.allocated_storage_gib
    error_message = "The storage starts at 20 GiB or more and must be allowed to grow."
  }

  validation {
    condition     = var.database.backup_retention_days >= (var.environment == "prod" ? 7 : 1) && var.database.backup_retention_days <= 35
    error_message = "Backups are kept for 1 to 35 days; in prod for at least 7."
  }

  validation {
    condition     = var.environment != "prod" || var.database.multi_az
    error_message = "In prod the database needs a standby in another zone: set multi_az."
  }

  # A deployment runs old and new tasks beside each other; then the two jobs and the migration; and Postgres keeps some back.
  validation {
    condition = var.database.max_connections >= (
      (2 * (var.api.max_tasks + var.worker.max_tasks) + 3) * (var.database_connections + 3) + 10
    )
    error_message = "All tasks together could open more connections than the database accepts: max_connections must be at least (2 × (api.max_tasks + worker.max_tasks) + 3) × (database_connections + 3) + 10, and the instance must have the memory for them."
  }
}

variable "database_connections" {
  description = "PSP_DATABASE_CONNECTIONS: connections of each task to the database; three more come on top."
  type        = number
  default     = 12

  validation {
    condition     = var.database_connections >= 4 && var.database_connections <= 200
    error_message = "psp takes 4 to 200 connections for each process."
  }
}

variable "deletion_protection" {
  description = "Whether database, load balancer and logs refuse to be deleted, and changes of the database wait for its maintenance window."
  type        = bool
  default     = true

  validation {
    condition     = var.environment != "prod" || var.deletion_protection
    error_message = "In prod the deletion protection stays on. To take production down, see the README."
  }
}

# Services

variable "api" {
  description = "The API: CPU in units of 1/1024 core and memory in MiB of a task, bounds of the number of tasks, and what autoscaling holds: mean CPU in percent, requests per minute and task."
  type = object({
    cpu               = number
    memory_mib        = number
    min_tasks         = number
    max_tasks         = number
    cpu_percent       = optional(number, 60)
    requests_per_task = optional(number, 30000)
  })

  validation {
    condition     = var.api.min_tasks >= (var.environment == "prod" ? 2 : 1) && var.api.max_tasks >= var.api.min_tasks
    error_message = "The API has at least one task, in prod at least two, and max_tasks is not below min_tasks."
  }

  validation {
    condition     = var.api.cpu_percent >= 10 && var.api.cpu_percent <= 90 && var.api.requests_per_task > 0
    error_message = "Autoscaling of the API holds 10 to 90 % of CPU, and more than 0 requests per minute and task."
  }
}

variable "worker" {
  description = "The worker: CPU in units of 1/1024 core and memory in MiB of a task, bounds of the number of tasks, and what autoscaling holds: mean CPU in percent, messages that wait per task."
  type = object({
    cpu              = number
    memory_mib       = number
    min_tasks        = number
    max_tasks        = number
    cpu_percent      = optional(number, 60)
    backlog_per_task = optional(number, 500)
  })

  validation {
    condition     = var.worker.min_tasks >= (var.environment == "prod" ? 2 : 1) && var.worker.max_tasks >= var.worker.min_tasks
    error_message = "The worker has at least one task, in prod at least two, and max_tasks is not below min_tasks."
  }

  validation {
    condition     = var.worker.cpu_percent >= 10 && var.worker.cpu_percent <= 90 && var.worker.backlog_per_task > 0
    error_message = "Autoscaling of the worker holds 10 to 90 % of CPU, and more than 0 messages per task."
  }
}

variable "settlement_schedule" {
  description = "When due payables are settled: schedule expression of EventBridge, in UTC; at least daily."
  type        = string
  default     = "cron(5 0 * * ? *)"

  validation {
    condition     = can(regex("^(cron|rate)\\(.+\\)$", var.settlement_schedule))
    error_message = "A schedule is cron(…) or rate(…), as EventBridge has them."
  }
}

variable "purge_schedule" {
  description = "When expired idempotency keys are deleted: schedule expression of EventBridge, in UTC."
  type        = string
  default     = "cron(35 * * * ? *)"

  validation {
    condition     = can(regex("^(cron|rate)\\(.+\\)$", var.purge_schedule))
    error_message = "A schedule is cron(…) or rate(…), as EventBridge has them."
  }
}

variable "shred_schedule" {
  description = "When sealed cards are erased that were kept too long: schedule expression of EventBridge, in UTC."
  type        = string
  default     = "cron(50 * * * ? *)"

  validation {
    condition     = can(regex("^(cron|rate)\\(.+\\)$", var.shred_schedule))
    error_message = "A schedule is cron(…) or rate(…), as EventBridge has them."
  }
}

variable "event_purge_schedule" {
  description = "When events are deleted that were kept long enough: schedule expression of EventBridge, in UTC."
  type        = string
  default     = "cron(20 3 * * ? *)"

  validation {
    condition     = can(regex("^(cron|rate)\\(.+\\)$", var.event_purge_schedule))
    error_message = "A schedule is cron(…) or rate(…), as EventBridge has them."
  }
}

# Logs and alarms

variable "log_retention_days" {
  description = "How long logs are kept, in days."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827], var.log_retention_days)
    error_message = "CloudWatch keeps logs for 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096 or 1827 days; shorter is too short to look into a dispute."
  }
}

variable "alarm_emails" {
  description = "Addresses that get the alarms; each has to confirm once."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for email in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "Alarms go to addresses such as oncall@example.com."
  }
}

variable "alarms" {
  description = "Limits beyond which there is an alarm: age of a message in seconds, p95 latency in seconds, share of requests without 5xx in percent, hours without a settlement run."
  type = object({
    queue_age_seconds        = optional(number, 300)
    p95_seconds              = optional(number, 0.5)
    success_percent          = optional(number, 99.5)
    settlement_overdue_hours = optional(number, 26)
  })
  default = {}

  validation {
    condition     = var.alarms.settlement_overdue_hours > 24 && var.alarms.settlement_overdue_hours <= 168
    error_message = "Settlement runs daily, and CloudWatch looks back for a week at most: settlement_overdue_hours is 25 to 168."
  }

  validation {
    condition     = var.alarms.success_percent > 0 && var.alarms.success_percent <= 100 && var.alarms.p95_seconds > 0 && var.alarms.queue_age_seconds > 0
    error_message = "Limits of alarms are above 0, and a share is at most 100 %."
  }
}

variable "emulator" {
  description = "Whether this is an emulator of AWS such as moto. It leaves out what emulators cannot do: redrive-allow policies, composite alarms, waiting until services run, and running the migration."
  type        = bool
  default     = false

  validation {
    condition     = !(var.emulator && var.environment == "prod")
    error_message = "prod is no emulator."
  }
}
