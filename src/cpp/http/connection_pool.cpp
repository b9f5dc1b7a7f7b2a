#include "http/connection_pool.hpp"

#include <aws/http/connection.h>
#include <aws/http/proxy.h>
#include <aws/io/socket.h>
#include <aws/io/uri.h>

#include <condition_variable>
#include <mutex>

#include "crt/error.hpp"

namespace kumo::http {
namespace {

// S3 closes connections that were idle for a few seconds more than this.
constexpr std::uint64_t kIdleMs = 15'000;

struct Live {
  std::mutex mutex;
  std::condition_variable changed;
  int kept = 0;     // by their owners
  int closing = 0;  // those, and others that have connections left
};

Live& live() {
  static Live* state = new Live();  // leaked: shutdown callbacks may come very late
  return *state;
}

void pool_gone(void* user_data) {
  const std::unique_ptr<std::shared_ptr<void>> kept(static_cast<std::shared_ptr<void>*>(user_data));
  Live& state = live();
  {
    std::lock_guard lock(state.mutex);
    --state.closing;
  }
  state.changed.notify_all();
}

// A parsed URL that owns its text.
class Uri {
 public:
  Uri(const std::string& text, const char* doing) {
    const aws_byte_cursor cursor = crt::cursor(text);
    crt::check(aws_uri_init_parse(&uri_, aws_default_allocator(), &cursor), doing);
  }
  ~Uri() { aws_uri_clean_up(&uri_); }
  Uri(const Uri&) = delete;
  Uri& operator=(const Uri&) = delete;

  // Without the brackets of an IPv6 address.
  [[nodiscard]] aws_byte_cursor host() const noexcept {
    aws_byte_cursor name = *aws_uri_host_name(&uri_);
    if (name.len > 2 && name.ptr[0] == '[' && name.ptr[name.len - 1] == ']') {
      name.ptr += 1;
      name.len -= 2;
    }
    return name;
  }
  [[nodiscard]] bool tls() const noexcept {
    return aws_byte_cursor_eq_c_str_ignore_case(aws_uri_scheme(&uri_), "https");
  }
  [[nodiscard]] std::uint32_t port() const noexcept {
    const std::uint32_t given = aws_uri_port(&uri_);
    return given != 0 ? given : (tls() ? 443 : 80);
  }
  [[nodiscard]] const aws_uri& get() const noexcept { return uri_; }

 private:
  aws_uri uri_{};
};

// Text of a URL without its percent escapes.
std::string decoded(const aws_byte_cursor& text) {
  aws_byte_buf buffer{};
  crt::check(aws_byte_buf_init(&buffer, aws_default_allocator(), text.len + 1), "decoding a URL");
  const crt::Handle<aws_byte_buf, aws_byte_buf_clean_up> cleaner(&buffer);
  crt::check(aws_byte_buf_append_decoding_uri(&buffer, &text), "decoding a URL");
  return {reinterpret_cast<const char*>(buffer.buffer), buffer.len};
}

// A proxy, with the login that its URL names.
class Proxy {
 public:
  explicit Proxy(const std::string& url)
      : uri_(url, "parsing the proxy's URL"),
        user_(decoded(uri_.get().user)),
        password_(decoded(uri_.get().password)) {}

  [[nodiscard]] aws_http_proxy_options options(bool tunnel) const {
    aws_http_proxy_options options{};
    options.connection_type = tunnel ? AWS_HPCT_HTTP_TUNNEL : AWS_HPCT_HTTP_FORWARD;
    options.host = uri_.host();
    options.port = uri_.port();
    if (!user_.empty()) {
      options.auth_type = AWS_HPAT_BASIC;
      options.auth_username = crt::cursor(user_);
      options.auth_password = crt::cursor(password_);
    }
    return options;
  }

 private:
  Uri uri_;
  std::string user_;
  std::string password_;
};

}  // namespace

ConnectionPool::ConnectionPool(const PoolOptions& options) {
  const Uri endpoint(options.endpoint, "parsing the endpoint");

  aws_socket_options socket{};
  socket.type = AWS_SOCKET_STREAM;
  socket.domain = AWS_SOCKET_IPV4;  // the bootstrap takes that of the address it resolved
  const aws_byte_cursor name = endpoint.host();
  socket.connect_timeout_ms = options.connect_timeout_ms;

  aws_http_connection_monitoring_options monitoring{};
  monitoring.minimum_throughput_bytes_per_second = 1;
  monitoring.allowable_throughput_failure_interval_seconds = options.stall_timeout_s;

  // The manager copies them; the server's name is the endpoint's.
  aws_tls_connection_options tls{};
  const crt::Handle<aws_tls_connection_options, aws_tls_connection_options_clean_up> cleaner(&tls);
  if (endpoint.tls()) {
    crt::check(aws_tls_connection_options_copy(&tls, options.tls), "copying the TLS options");
    aws_byte_cursor server_name = name;
    crt::check(
        aws_tls_connection_options_set_server_name(&tls, aws_default_allocator(), &server_name),
        "setting the server's name");
  }

  aws_http_connection_manager_options manager{};
  manager.bootstrap = options.bootstrap;
  manager.initial_window_size = SIZE_MAX;
  manager.socket_options = &socket;
  manager.tls_connection_options = endpoint.tls() ? &tls : nullptr;
  manager.response_first_byte_timeout_ms = std::uint64_t{options.stall_timeout_s} * 1000;
  if (options.stall_timeout_s != 0) manager.monitoring_options = &monitoring;
  manager.host = name;
  manager.port = endpoint.port();
  manager.max_connections = options.max_connections;
  manager.max_connection_idle_in_milliseconds = kIdleMs;

  std::unique_ptr<Proxy> proxy;
  aws_http_proxy_options through{};
  if (!options.proxy.empty()) {
    proxy = std::make_unique<Proxy>(options.proxy);
    through = proxy->options(endpoint.tls());
    manager.proxy_options = &through;
  }

  auto kept = std::make_unique<std::shared_ptr<void>>(options.keep_alive);
  manager.shutdown_complete_callback = pool_gone;
  manager.shutdown_complete_user_data = kept.get();
  {
    std::lock_guard lock(live().mutex);
    ++live().closing;
  }
  manager_.reset(aws_http_connection_manager_new(aws_default_allocator(), &manager));
  void* owned = kept.release();  // by the shutdown callback
  if (manager_ == nullptr) {
    const int code = aws_last_error();
    pool_gone(owned);
    throw crt::Error(code, "making the connection pool");
  }
  std::lock_guard lock(live().mutex);
  ++live().kept;
}

ConnectionPool::~ConnectionPool() {
  if (manager_ == nullptr) return;  // abandoned
  manager_.reset();
  Live& state = live();
  {
    std::lock_guard lock(state.mutex);
    --state.kept;
  }
  state.changed.notify_all();
}

aws_http_manager_metrics ConnectionPool::metrics() const noexcept {
  aws_http_manager_metrics found{};
  aws_http_connection_manager_fetch_metrics(manager_.get(), &found);
  return found;
}

bool wait_for_pools(const crt::Deadline& deadline) {
  Live& state = live();
  std::unique_lock lock(state.mutex);
  return state.changed.wait_until(lock, deadline.at(), [&] {
    return state.closing <= state.kept;
  }) && state.kept == 0;
}

}  // namespace kumo::http
