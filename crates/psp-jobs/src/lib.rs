//! Cron entrypoint and one-off jobs.
