#include "rocksdb/filename.hpp"

#include <algorithm>
#include <charconv>

#include "rocksdb/error.hpp"
#include "rocksdb/file.hpp"

namespace kumo::rocksdb {
namespace {

constexpr std::string_view kManifestPrefix = "MANIFEST-";
constexpr std::string_view kOptionsPrefix = "OPTIONS-";
constexpr std::string_view kTempSuffix = ".dbtmp";
constexpr std::string_view kOldLogPrefix = "LOG.old.";

std::optional<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || stop != end || error != std::errc()) return std::nullopt;
  return number;
}

FileName numbered(FileKind kind, std::string_view digits) {
  const auto number = parse_number(digits);
  if (!number) return {};
  return {kind, number};
}

FileKind kind_of_suffix(std::string_view suffix) {
  if (suffix == ".sst" || suffix == ".ldb") return FileKind::kSst;
  if (suffix == ".blob") return FileKind::kBlob;
  if (suffix == ".log") return FileKind::kWal;
  return FileKind::kOther;
}

}  // namespace

const char* file_kind_name(FileKind kind) noexcept {
  switch (kind) {
    case FileKind::kSst:
      return "sst";
    case FileKind::kBlob:
      return "blob";
    case FileKind::kWal:
      return "wal";
    case FileKind::kManifest:
      return "manifest";
    case FileKind::kOptions:
      return "options";
    case FileKind::kCurrent:
      return "current";
    case FileKind::kIdentity:
      return "identity";
    case FileKind::kLock:
      return "lock";
    case FileKind::kInfoLog:
      return "info_log";
    case FileKind::kTemp:
      return "temp";
    case FileKind::kOther:
      break;
  }
  return "other";
}

FileName classify_file(std::string_view name) {
  if (name == "CURRENT") return {FileKind::kCurrent, std::nullopt};
  if (name == "IDENTITY") return {FileKind::kIdentity, std::nullopt};
  if (name == "LOCK") return {FileKind::kLock, std::nullopt};
  if (name == "LOG" || name == "LOG.old") return {FileKind::kInfoLog, std::nullopt};
  if (name.starts_with(kOldLogPrefix)) {
    return numbered(FileKind::kInfoLog, name.substr(kOldLogPrefix.size()));
  }
  if (name.starts_with(kManifestPrefix)) {
    return numbered(FileKind::kManifest, name.substr(kManifestPrefix.size()));
  }
  FileKind kind = FileKind::kOptions;
  std::string_view rest = name;
  if (rest.ends_with(kTempSuffix)) {
    kind = FileKind::kTemp;
    rest.remove_suffix(kTempSuffix.size());
  }
  if (rest.starts_with(kOptionsPrefix)) {
    return numbered(kind, rest.substr(kOptionsPrefix.size()));
  }
  if (kind == FileKind::kTemp) return numbered(kind, rest);
  const std::size_t dot = name.find('.');
  if (dot == std::string_view::npos) return {};
  kind = kind_of_suffix(name.substr(dot));
  return kind == FileKind::kOther ? FileName{} : numbered(kind, name.substr(0, dot));
}

std::string read_current(const std::filesystem::path& path) {
  constexpr std::uint64_t kMaxSize = 64;
  const ReadOnlyFile file(path);
  const std::string text = file.read_exactly(0, std::min(file.size(), kMaxSize));
  const bool ended = !text.empty() && text.back() == '\n' && file.size() <= kMaxSize;
  const std::string name = ended ? text.substr(0, text.size() - 1) : text;
  if (!ended || classify_file(name).kind != FileKind::kManifest) {
    throw FormatError(file.path(), 0,
                      "CURRENT must be exactly \"MANIFEST-<number>\" and a newline");
  }
  return name;
}

}  // namespace kumo::rocksdb
