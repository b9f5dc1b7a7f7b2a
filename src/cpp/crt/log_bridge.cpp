#include "crt/log_bridge.hpp"

#include <aws/auth/auth.h>
#include <aws/cal/cal.h>
#include <aws/common/common.h>
#include <aws/common/logging.h>
#include <aws/event-stream/event_stream.h>
#include <aws/http/http.h>
#include <aws/io/logging.h>
#include <aws/s3/s3.h>
#include <aws/sdkutils/sdkutils.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <deque>
#include <mutex>
#include <string_view>

namespace kumo::crt {
namespace {

constexpr std::size_t kMaxQueued = 10000;
constexpr std::size_t kMaxLine = 8192;
constexpr std::size_t kPackages = 32;
constexpr std::size_t kSubjectsPerPackage = 64;

// Packages whose subjects can be told apart; the rest share the general level.
constexpr std::array<std::uint32_t, 8> kKnownPackages = {
    AWS_C_COMMON_PACKAGE_ID,   AWS_C_IO_PACKAGE_ID,          AWS_C_HTTP_PACKAGE_ID,
    AWS_C_AUTH_PACKAGE_ID,     AWS_C_S3_PACKAGE_ID,          AWS_C_CAL_PACKAGE_ID,
    AWS_C_SDKUTILS_PACKAGE_ID, AWS_C_EVENT_STREAM_PACKAGE_ID};

}  // namespace

struct LogBridge::Impl {
  std::atomic<int> level{AWS_LL_NONE};
  std::array<std::atomic<int>, kPackages * kSubjectsPerPackage> levels{};
  mutable std::mutex mutex;
  std::condition_variable ready;
  std::deque<LogLine> lines;
  std::uint64_t dropped = 0;
  bool stopped = false;
  aws_logger logger{};

  static std::atomic<int>* slot(Impl& impl, std::uint32_t subject) {
    const std::uint32_t package = subject >> AWS_LOG_SUBJECT_STRIDE_BITS;
    const std::uint32_t index = subject & (AWS_LOG_SUBJECT_STRIDE - 1);
    if (package >= kPackages || index >= kSubjectsPerPackage) return nullptr;
    return &impl.levels[package * kSubjectsPerPackage + index];
  }
};

namespace {

__attribute__((format(printf, 4, 5))) int log_line(aws_logger*, aws_log_level level,
                                                   aws_log_subject_t subject, const char* format,
                                                   ...) {
  std::array<char, kMaxLine> text;
  va_list args;
  va_start(args, format);
  const int length = std::vsnprintf(text.data(), text.size(), format, args);
  va_end(args);
  if (length < 0) return AWS_OP_SUCCESS;
  const auto size = std::min(static_cast<std::size_t>(length), text.size() - 1);
  LogBridge::instance().push(static_cast<int>(level), subject, std::string(text.data(), size));
  return AWS_OP_SUCCESS;
}

aws_log_level log_level(aws_logger*, aws_log_subject_t subject) {
  return static_cast<aws_log_level>(LogBridge::instance().level_of(subject));
}

void log_clean_up(aws_logger*) {}

int log_set_level(aws_logger*, aws_log_level level) {
  LogBridge::instance().set_level(static_cast<int>(level));
  return AWS_OP_SUCCESS;
}

aws_logger_vtable log_vtable = {
    .log = log_line,
    .get_log_level = log_level,
    .clean_up = log_clean_up,
    .set_log_level = log_set_level,
};

}  // namespace

LogBridge& LogBridge::instance() {
  // Leaked on purpose: CRT threads may log until the very end of the process.
  static LogBridge* bridge = new LogBridge();
  return *bridge;
}

LogBridge::LogBridge() : impl_(new Impl()) {
  impl_->logger.vtable = &log_vtable;
  impl_->logger.allocator = aws_default_allocator();
  impl_->logger.p_impl = this;
}

void LogBridge::install() { aws_logger_set(&impl_->logger); }

void LogBridge::set_level(int level) noexcept {
  for (auto& slot : impl_->levels) slot.store(level, std::memory_order_relaxed);
  impl_->level.store(level, std::memory_order_relaxed);
}

void LogBridge::set_subject_level(std::uint32_t subject, int level) {
  if (auto* slot = Impl::slot(*impl_, subject)) slot->store(level, std::memory_order_relaxed);
}

int LogBridge::level_of(std::uint32_t subject) const noexcept {
  const auto* slot = Impl::slot(*impl_, subject);
  return (slot != nullptr ? *slot : impl_->level).load(std::memory_order_relaxed);
}

void LogBridge::push(int level, std::uint32_t subject, std::string text) {
  const char* name = aws_log_subject_name(subject);
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->stopped) return;
    if (impl_->lines.size() >= kMaxQueued) {
      ++impl_->dropped;
      return;
    }
    impl_->lines.push_back({level, name != nullptr ? name : "unknown", std::move(text)});
  }
  impl_->ready.notify_one();
}

std::vector<LogLine> LogBridge::take(std::chrono::milliseconds timeout) {
  std::unique_lock lock(impl_->mutex);
  impl_->ready.wait_for(lock, timeout, [&] { return impl_->stopped || !impl_->lines.empty(); });
  std::vector<LogLine> out(std::make_move_iterator(impl_->lines.begin()),
                           std::make_move_iterator(impl_->lines.end()));
  impl_->lines.clear();
  if (impl_->dropped != 0) {
    out.push_back({AWS_LL_WARN, "kumo",
                   std::to_string(impl_->dropped) + " log lines were dropped: too many at once"});
    impl_->dropped = 0;
  }
  return out;
}

void LogBridge::stop() {
  set_level(AWS_LL_NONE);
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopped = true;
  }
  impl_->ready.notify_all();
}

bool LogBridge::stopped() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->stopped;
}

std::vector<std::pair<std::uint32_t, std::string>> log_subjects() {
  std::vector<std::pair<std::uint32_t, std::string>> out;
  for (const std::uint32_t package : kKnownPackages) {
    for (std::uint32_t index = 0; index < kSubjectsPerPackage; ++index) {
      const std::uint32_t subject = AWS_LOG_SUBJECT_BEGIN_RANGE(package) + index;
      const char* name = aws_log_subject_name(subject);
      if (name == nullptr || std::string_view(name) == "Unknown") continue;
      out.emplace_back(subject, name);
    }
  }
  return out;
}

}  // namespace kumo::crt
