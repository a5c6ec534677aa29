//! Passwords for RDS from the AWS identity of the process: a signed URL that is valid for 15 minutes, as the RDS guide's
//! "IAM database authentication" has it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use async_trait::async_trait;
use aws_config::{Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use psp_domain::ports::Clock;
use psp_postgres::{Login, PasswordSource, PgOptions};
use secrecy::SecretString;

/// How long RDS takes a token for a login.
const LIFETIME: Duration = Duration::from_mins(15);

/// Signs tokens for one database user.
pub(crate) struct RdsTokens {
    config: SdkConfig,
    region: Region,
    login: Login,
    clock: Arc<dyn Clock>,
}

impl RdsTokens {
    pub(crate) async fn new(options: &PgOptions, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let config = psp_sqs::config().load().await;
        let region = config.region().context("PSP_DATABASE_AUTH=rds_iam needs AWS_REGION")?.clone();
        let login = options.login().context("DATABASE_URL")?;
        Ok(Self { config, region, login, clock })
    }
}

#[async_trait]
impl PasswordSource for RdsTokens {
    async fn password(&self) -> Result<SecretString, Box<dyn std::error::Error + Send + Sync>> {
        let provider = self.config.credentials_provider().ok_or("there are no AWS credentials")?;
        let credentials = provider.provide_credentials().await?;
        Ok(token(&self.login, &self.region, credentials, self.clock.now().into())?.into())
    }
}

fn token(
    login: &Login,
    region: &Region,
    credentials: Credentials,
    now: SystemTime,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let identity = credentials.into();
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(LIFETIME);
    settings.signature_location = SignatureLocation::QueryParams;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region.as_ref())
        .name("rds-db")
        .time(now)
        .settings(settings)
        .build()?;
    let Login { host, port, user } = login;
    let host = format!("{host}:{port}");
    let url = format!("https://{host}/?Action=connect&DBUser={user}");
    let headers = [("host", host.as_str())].into_iter();
    let request = SignableRequest::new("GET", &url, headers, SignableBody::Bytes(&[]))?;
    let (instructions, _) = sign(request, &params.into())?.into_parts();
    let mut request = http::Request::get(&url).body(())?;
    instructions.apply_to_request_http1x(&mut request);
    Ok(request.uri().to_string().trim_start_matches("https://").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_the_aws_sdk_for_python_makes_of_the_same() {
        let login = Login { host: "db.example.com".into(), port: 5432, user: "psp".into() };
        let credentials =
            Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None, None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let token = token(&login, &Region::new("eu-west-1"), credentials, now).unwrap();
        let expected = concat!(
            "db.example.com:5432/?Action=connect&DBUser=psp",
            "&X-Amz-Algorithm=AWS4-HMAC-SHA256",
            "&X-Amz-Credential=AKIDEXAMPLE%2F20261118%2Feu-west-1%2Frds-db%2Faws4_request",
            "&X-Amz-Date=20261118T110640Z",
            "&X-Amz-Expires=900",
            "&X-Amz-SignedHeaders=host",
            "&X-Amz-Signature=b1ed46fb2d1c4ca9e320330a421f04e6ddda478b2c9d76a209f372ce302318b3",
        );
        assert_eq!(token, expected);
    }
}
