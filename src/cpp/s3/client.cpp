#include "s3/client.hpp"

#include <aws/common/date_time.h>
#include <aws/s3/s3_client.h>

#include <condition_variable>
#include <utility>

#include "crt/error.hpp"
#include "s3/operation.hpp"

namespace kumo::s3 {
namespace {

// A first handshake that fails means a wrong CA, or no TLS at all: trying again would take half a
// minute each time, as s2n delays the end of a failed connection. Once one has succeeded,
// failures are taken for passing ones and are retried.
void tls_negotiated(aws_channel_handler*, aws_channel_slot*, int error_code, void* user_data) {
  auto* watch = static_cast<TlsWatch*>(user_data);
  if (error_code == AWS_ERROR_SUCCESS) {
    watch->succeeded.store(true, std::memory_order_relaxed);
  } else if (!watch->succeeded.load(std::memory_order_relaxed)) {
    end_waiting(watch, error_code);
  }
}

// How long to wait for those who keep a client.
constexpr std::chrono::milliseconds kKeptTime{500};

struct Live {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t clients = 0;
};

Live& live() {
  static Live* state = new Live();  // leaked: operations may end very late
  return *state;
}

}  // namespace

Client::Counted::Counted() {
  const std::lock_guard lock(live().mutex);
  ++live().clients;
}

Client::Counted::~Counted() {
  if (crt::Runtime::forked()) return;  // a thread of the parent may have held the lock
  Live& state = live();
  {
    const std::lock_guard lock(state.mutex);
    --state.clients;
  }
  state.changed.notify_all();
}

std::shared_ptr<Client> Client::create(const ClientOptions& options) {
  return std::shared_ptr<Client>(new Client(options));
}

Client::Client(const ClientOptions& options)
    : options_(options),
      runtime_(crt::Runtime::get(options.event_loops)),
      // The credentials chain may need TLS even where the endpoint is plain HTTP (STS, IMDS, SSO).
      tls_(options.tls_at_once ? crt::new_tls_context(options.ca_file, options.verify)
                               : crt::TlsContext()),
      credentials_(crt::Credentials::create(runtime_, options.credentials, tls_.get())) {}

Client::~Client() {
  if (!crt::Runtime::forked()) return;
  // Threads that exist only in the parent may hold the CRT's locks: leave everything as it is.
  for (auto& [endpoint, pool] : pools_) pool->abandon();
  [[maybe_unused]] const void* tls = tls_.release();
  [[maybe_unused]] const auto* kept =
      new std::shared_ptr<crt::Credentials>(std::move(credentials_));
}

const http::ConnectionPool& Client::pool(const std::string& endpoint) {
  std::lock_guard lock(mutex_);
  auto found = pools_.find(endpoint);
  if (found == pools_.end()) {
    if (tls_ == nullptr && !endpoint.starts_with("http://")) {
      tls_ = crt::new_tls_context(options_.ca_file, options_.verify);
    }
    aws_tls_connection_options tls{};
    const crt::Handle<aws_tls_connection_options, aws_tls_connection_options_clean_up> cleaner(
        &tls);
    if (tls_ != nullptr) {
      aws_tls_connection_options_init_from_ctx(&tls, tls_.get());
      aws_tls_connection_options_set_callbacks(&tls, tls_negotiated, nullptr, nullptr,
                                               watch_.get());
      tls.timeout_ms = options_.connect_timeout_ms;
    }

    http::PoolOptions pool;
    pool.bootstrap = runtime_->bootstrap();
    pool.endpoint = endpoint;
    pool.tls = &tls;
    pool.proxy = options_.proxy;
    pool.max_connections = options_.max_connections;
    pool.connect_timeout_ms = options_.connect_timeout_ms;
    pool.stall_timeout_s = options_.stall_timeout_s;
    pool.keep_alive = watch_;
    found = pools_.emplace(endpoint, std::make_unique<http::ConnectionPool>(pool)).first;
  }
  return *found->second;
}

aws_signing_config_aws Client::signing_config(const aws_credentials* credentials) const {
  aws_signing_config_aws config{};
  aws_s3_init_default_signing_config(&config, crt::cursor(options_.region), nullptr);
  config.credentials = credentials;
  aws_date_time_init_now(&config.date);
  const std::int64_t offset = clock_offset_ms_.load(std::memory_order_relaxed);
  if (offset != 0) {
    const auto now = static_cast<std::int64_t>(aws_date_time_as_millis(&config.date));
    aws_date_time_init_epoch_millis(&config.date, static_cast<std::uint64_t>(now + offset));
  }
  return config;
}

bool wait_for_clients(const crt::Deadline& deadline) {
  const crt::Deadline kept(std::min<std::chrono::nanoseconds>(kKeptTime, deadline.left()));
  Live& state = live();
  std::unique_lock lock(state.mutex);
  return state.changed.wait_until(lock, kept.at(), [&] { return state.clients == 0; });
}

Client::Connections Client::connections() {
  Connections sums;
  std::lock_guard lock(mutex_);
  for (const auto& [endpoint, pool] : pools_) {
    const aws_http_manager_metrics found = pool->metrics();
    sums.idle += found.available_concurrency;
    sums.leased += found.leased_concurrency;
    sums.waiting += found.pending_concurrency_acquires;
  }
  return sums;
}

}  // namespace kumo::s3
