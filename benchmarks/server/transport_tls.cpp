#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "transport.hpp"

namespace kumo::bench {
namespace {

// Records are collected to this size before they are sent, and received in pieces of it.
constexpr long kBufferSize = 256 << 10;

[[noreturn]] void fail(const std::string& what) {
  char reason[256] = "no reason given";
  ERR_error_string_n(ERR_get_error(), reason, sizeof reason);
  throw std::runtime_error(what + ": " + reason);
}

class TlsTransport final : public Transport {
 public:
  TlsTransport(SSL* session, int descriptor) : session_(session), descriptor_(descriptor) {
    BIO* out = BIO_new_socket(descriptor, BIO_NOCLOSE);
    buffer_ = BIO_new(BIO_f_buffer());
    BIO_set_write_buffer_size(buffer_, kBufferSize);
    BIO_push(buffer_, out);
    SSL_set_bio(session_, BIO_new_socket(descriptor, BIO_NOCLOSE), buffer_);
    SSL_set_accept_state(session_);
  }
  ~TlsTransport() override {
    SSL_free(session_);
    close(descriptor_);
  }
  TlsTransport(const TlsTransport&) = delete;
  TlsTransport& operator=(const TlsTransport&) = delete;

  Io handshake() override {
    const Io done = outcome(SSL_do_handshake(session_));
    if (done == Io::kClosed) return done;
    const Io flushed = flush();
    return done == Io::kOk || flushed == Io::kClosed ? flushed : done;
  }

  Moved read(char* to, std::size_t capacity) override {
    const int wanted = static_cast<int>(std::min<std::size_t>(capacity, 1 << 30));
    const int count = SSL_read(session_, to, wanted);
    const Io state = outcome(count);
    return {state, state == Io::kOk ? static_cast<std::size_t>(count) : 0};
  }

  Moved discard(std::uint64_t at_most) override {
    static char scratch[64 << 10];
    return read(scratch,
                static_cast<std::size_t>(std::min<std::uint64_t>(at_most, sizeof scratch)));
  }

  Moved write(std::string_view data, bool) override {
    const int count = SSL_write(session_, data.data(), static_cast<int>(data.size()));
    const Io state = outcome(count);
    return {state, state == Io::kOk ? static_cast<std::size_t>(count) : 0};
  }

  Moved write_content(const Content& content, std::uint64_t offset, std::uint64_t count) override {
    const std::string_view piece = content.at(offset);
    return write(
        piece.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(count, piece.size()))),
        true);
  }

  Io flush() override {
    if (BIO_flush(buffer_) > 0) return Io::kOk;
    wants_write_ = true;
    return BIO_should_retry(buffer_) ? Io::kBlocked : Io::kClosed;
  }

  [[nodiscard]] bool wants_write() const override { return wants_write_; }

 private:
  Io outcome(int result) {
    if (result > 0) return Io::kOk;
    switch (SSL_get_error(session_, result)) {
      case SSL_ERROR_WANT_READ:
        wants_write_ = false;
        return Io::kBlocked;
      case SSL_ERROR_WANT_WRITE:
        wants_write_ = true;
        return Io::kBlocked;
      default:
        ERR_clear_error();
        return Io::kClosed;
    }
  }

  SSL* session_;
  BIO* buffer_;  // owned by the session
  int descriptor_;
  bool wants_write_ = false;
};

}  // namespace

Tls::Tls(const char* certificate_chain, const char* private_key)
    : context_(SSL_CTX_new(TLS_server_method())) {
  auto* context = static_cast<SSL_CTX*>(context_);
  if (context == nullptr) fail("SSL_CTX_new");
  // One cipher for all clients, the one that S3 chooses: else their preferences are compared.
  if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") != 1 ||
      SSL_CTX_set_cipher_list(context, "ECDHE-ECDSA-AES128-GCM-SHA256") != 1) {
    fail("choosing the cipher");
  }
  if (SSL_CTX_use_certificate_chain_file(context, certificate_chain) != 1) fail(certificate_chain);
  if (SSL_CTX_use_PrivateKey_file(context, private_key, SSL_FILETYPE_PEM) != 1) fail(private_key);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, kBufferSize);
}

Tls::~Tls() { SSL_CTX_free(static_cast<SSL_CTX*>(context_)); }

std::unique_ptr<Transport> Tls::accept(int descriptor) {
  SSL* session = SSL_new(static_cast<SSL_CTX*>(context_));
  if (session == nullptr) fail("SSL_new");
  return std::make_unique<TlsTransport>(session, descriptor);
}

}  // namespace kumo::bench
