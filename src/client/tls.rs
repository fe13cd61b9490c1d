//! The cryptography of TLS, chosen once per process.

/// Makes ring the provider of TLS cryptography. Calling it again changes nothing.
pub fn install_crypto_provider() {
    // An error says that a provider is there already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
