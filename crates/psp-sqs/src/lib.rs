//! Queue on Amazon SQS.
