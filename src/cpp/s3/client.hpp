#pragma once

#include <aws/http/request_response.h>
#include <aws/s3/s3_client.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "async/buffer.hpp"
#include "crt/runtime.hpp"

namespace kumo::s3 {

struct ClientOptions {
  std::string region;
  bool tls = true;
  std::string ca_file;
  bool verify = true;
  crt::CredentialsOptions credentials;
  std::uint64_t part_size = 0;
  std::uint64_t memory_limit = 0;
  std::uint32_t max_connections = 0;
  std::uint16_t event_loops = 0;
  std::uint32_t max_attempts = 0;
  std::uint32_t connect_timeout_ms = 0;
  std::uint32_t stall_timeout_s = 0;  // no byte moved for so long: the connection is given up
};

// Watches a client's TLS handshakes. Lives until the native client's connections are gone.
struct TlsWatch {
  std::atomic<bool> succeeded{false};
};

// Owns an aws_s3_client and what it stands on. Operations keep a shared_ptr to it, so that the
// last one to end frees it; `wait_for_clients` waits for the connections to go.
class Client {
 public:
  static std::shared_ptr<Client> create(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  [[nodiscard]] aws_s3_client* native() const noexcept { return client_; }
  [[nodiscard]] async::BufferPool& buffers() noexcept { return buffers_; }
  [[nodiscard]] const TlsWatch* watch() const noexcept { return watch_; }

 private:
  explicit Client(const ClientOptions& options);

  std::shared_ptr<crt::Runtime> runtime_;
  crt::TlsContext tls_;
  crt::CredentialsProvider credentials_;
  crt::RetryStrategy retries_;
  async::BufferPool buffers_;
  TlsWatch* watch_ = nullptr;  // freed by the shutdown callback
  aws_s3_client* client_ = nullptr;
};

// Native S3 clients (of every Client) whose connections are not gone yet.
[[nodiscard]] int live_clients();

// Waits until live_clients() is 0. False on timeout.
bool wait_for_clients(std::chrono::milliseconds timeout);

}  // namespace kumo::s3
