#pragma once

#include <aws/http/connection_manager.h>
#include <aws/io/channel_bootstrap.h>
#include <aws/io/tls_channel_handler.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "crt/deadline.hpp"
#include "crt/handle.hpp"

namespace kumo::http {

struct PoolOptions {
  aws_client_bootstrap* bootstrap = nullptr;
  std::string endpoint;                             // scheme://host[:port]
  const aws_tls_connection_options* tls = nullptr;  // used with https; copied
  std::string proxy;                                // http://[user:password@]host:port, or empty
  std::size_t max_connections = 0;
  std::uint32_t connect_timeout_ms = 0;
  std::uint32_t stall_timeout_s = 0;
  // Kept until the last connection is gone: what the TLS callbacks point at.
  std::shared_ptr<void> keep_alive;
};

// The connections to one endpoint, over aws-c-http's connection manager: made as they are needed,
// used again, closed when idle. Thread safe. Connections may outlive the pool object for a while
// (they close on their event loops); `wait_for_pools` waits for that.
class ConnectionPool {
 public:
  using OnConnection = aws_http_connection_manager_on_connection_setup_fn;

  // Throws crt::Error where the endpoint or the proxy cannot be parsed.
  explicit ConnectionPool(const PoolOptions& options);
  ~ConnectionPool();
  ConnectionPool(const ConnectionPool&) = delete;
  ConnectionPool& operator=(const ConnectionPool&) = delete;

  // Calls back once, on any thread, also before this returns. What was given has to be released.
  void acquire(OnConnection* callback, void* user_data) const {
    aws_http_connection_manager_acquire_connection(manager_.get(), callback, user_data);
  }
  // A connection that was closed meanwhile is not used again.
  void release(aws_http_connection* connection) const noexcept {
    aws_http_connection_manager_release_connection(manager_.get(), connection);
  }
  // Idle and leased connections, and requests that wait for one.
  [[nodiscard]] aws_http_manager_metrics metrics() const noexcept;

  // In a forked child, whose copy of the manager nobody may touch.
  void abandon() noexcept { [[maybe_unused]] const void* kept = manager_.release(); }

 private:
  crt::Handle<aws_http_connection_manager, aws_http_connection_manager_release> manager_;
};

// Waits until the connections of all pools are gone that nobody keeps. False if some are left, or
// somebody keeps a pool.
bool wait_for_pools(const crt::Deadline& deadline);

}  // namespace kumo::http
