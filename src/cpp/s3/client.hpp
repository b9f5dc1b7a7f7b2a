#pragma once

#include <aws/auth/signing_config.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "crt/credentials.hpp"
#include "crt/runtime.hpp"
#include "http/connection_pool.hpp"
#include "s3/metrics.hpp"

namespace kumo::s3 {

struct ClientOptions {
  std::string region;
  std::string ca_file;
  bool verify = true;
  std::string proxy;  // http://[user:password@]host:port, or empty
  crt::CredentialsOptions credentials;
  // Whether TLS is made ready at once, which reads every CA there is (10 ms), or with the first
  // https endpoint: for clients of plain HTTP whose credentials need no requests.
  bool tls_at_once = true;
  std::uint32_t max_connections = 0;
  std::uint16_t event_loops = 0;
  std::uint32_t connect_timeout_ms = 0;
  std::uint32_t stall_timeout_s = 0;  // no byte moved for so long: the connection is given up
};

// Watches a client's TLS handshakes. Lives until the client's connections are gone.
struct TlsWatch {
  std::atomic<bool> succeeded{false};
};

// What requests share: connections by endpoint, credentials, buffers, counters. Operations keep a
// shared_ptr to it, so that the last one to end frees it; `http::wait_for_pools` waits for the
// connections to go.
class Client {
 public:
  static std::shared_ptr<Client> create(const ClientOptions& options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // The connections to an endpoint; made with its first request. Throws crt::Error.
  [[nodiscard]] const http::ConnectionPool& pool(const std::string& endpoint);

  // How a request that is sent now is to be signed; points into this client and at `credentials`.
  [[nodiscard]] aws_signing_config_aws signing_config(const aws_credentials* credentials) const;
  [[nodiscard]] crt::Credentials& credentials() const noexcept { return *credentials_; }

  // What to add to this machine's clock for the service's. Any thread.
  void set_clock_offset(std::int64_t milliseconds) noexcept { clock_offset_ms_ = milliseconds; }
  [[nodiscard]] std::int64_t clock_offset() const noexcept { return clock_offset_ms_; }

  [[nodiscard]] Metrics& metrics() noexcept { return metrics_; }
  [[nodiscard]] const TlsWatch* watch() const noexcept { return watch_.get(); }

  struct Connections {
    std::size_t idle = 0;
    std::size_t leased = 0;
    std::size_t waiting = 0;  // requests that wait for one
  };
  [[nodiscard]] Connections connections();

 private:
  explicit Client(const ClientOptions& options);

  // Counts clients. The first member, so that it goes last.
  struct Counted {
    Counted();
    ~Counted();
    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;
  };

  const Counted counted_;
  const ClientOptions options_;
  std::shared_ptr<crt::Runtime> runtime_;
  crt::TlsContext tls_;  // made with the client, or later under the lock
  std::shared_ptr<crt::Credentials> credentials_;
  std::shared_ptr<TlsWatch> watch_ = std::make_shared<TlsWatch>();
  Metrics metrics_;
  std::atomic<std::int64_t> clock_offset_ms_{0};

  std::mutex mutex_;  // guards the map; pools are never taken out of it
  std::map<std::string, std::unique_ptr<http::ConnectionPool>, std::less<>> pools_;
};

// At interpreter exit: waits until nobody keeps a client. Not for long: who does so then is a
// daemon thread that may never let go, or one that has just been told that its operation was
// cancelled, and removes its temporary file. False if some are left.
bool wait_for_clients(const crt::Deadline& deadline);

}  // namespace kumo::s3
