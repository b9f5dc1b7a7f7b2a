#include "measure.hpp"

#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <system_error>
#include <vector>

namespace kumo::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

double status_mib(const char* name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name)) return std::stod(line.substr(std::strlen(name))) / 1024;
  }
  return 0;
}

}  // namespace

Memory::Memory(std::size_t size)
    : size_(size),
      data_(static_cast<char*>(
          mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
  if (data_ == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
  std::memset(data_, 1, size);
}

Memory::~Memory() { munmap(data_, size_); }

std::string measured(const std::function<void()>& work) {
  std::ofstream("/proc/self/clear_refs") << "5";  // the high-water mark begins here
  const double memory = status_mib("VmRSS:");
  const double cpu = cpu_seconds();
  const Clock::time_point begun = Clock::now();
  work();
  const double wall = seconds(Clock::now() - begun);
  const double used = cpu_seconds() - cpu;
  char text[256];
  std::snprintf(text, sizeof text,
                "{\"cpu_seconds\": %.6f, \"wall_seconds\": %.6f, \"peak_rss_growth_mib\": %.2f}",
                used, wall, status_mib("VmHWM:") - memory);
  return text;
}

std::string latencies(std::uint64_t count, const std::function<void()>& work) {
  std::vector<double> times(count);
  const double cpu = cpu_seconds();
  const Clock::time_point begun = Clock::now();
  for (double& time : times) {
    const Clock::time_point before = Clock::now();
    work();
    time = seconds(Clock::now() - before) * 1e6;
  }
  const double wall = seconds(Clock::now() - begun);
  const double used = cpu_seconds() - cpu;
  std::sort(times.begin(), times.end());
  char text[256];
  std::snprintf(text, sizeof text,
                "{\"cpu_seconds\": %.6f, \"wall_seconds\": %.6f, \"requests_per_second\": %.1f, "
                "\"p50_us\": %.1f, \"p99_us\": %.1f}",
                used, wall, static_cast<double>(count) / wall, times[count / 2],
                times[count * 99 / 100]);
  return text;
}

}  // namespace kumo::bench
