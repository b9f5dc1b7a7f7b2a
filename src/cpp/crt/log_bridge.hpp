#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace kumo::crt {

// The CRT calls its logger from event-loop threads, which must not touch Python. Lines are
// formatted there, queued (bounded: old lines are kept, new ones counted as dropped), and a
// Python thread takes them out with `take`.
struct LogLine {
  int level;            // aws_log_level: 1 fatal .. 6 trace
  std::string subject;  // CRT subject name
  std::string text;
};

class LogBridge {
 public:
  // The process's bridge; it lives until the process ends, as the CRT keeps a pointer to it.
  static LogBridge& instance();

  // Makes this bridge the CRT's logger.
  void install();

  // The most verbose level that any subject wants, and levels per subject id.
  void set_level(int level) noexcept;
  void set_subject_level(std::uint32_t subject, int level);
  [[nodiscard]] int level_of(std::uint32_t subject) const noexcept;

  // Waits for lines. Returns at once with nothing after `stop`.
  std::vector<LogLine> take(std::chrono::milliseconds timeout);
  void stop();
  [[nodiscard]] bool stopped() const;

  void push(int level, std::uint32_t subject, std::string text);

  LogBridge(const LogBridge&) = delete;
  LogBridge& operator=(const LogBridge&) = delete;

 private:
  LogBridge();
  ~LogBridge() = default;

  struct Impl;
  Impl* impl_;
};

// Ids and names of every log subject of the linked libraries.
std::vector<std::pair<std::uint32_t, std::string>> log_subjects();

}  // namespace kumo::crt
