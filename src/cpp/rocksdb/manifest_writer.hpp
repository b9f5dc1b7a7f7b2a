#pragma once

#include <cstdint>
#include <filesystem>
#include <set>

#include "rocksdb/manifest.hpp"

namespace kumo::rocksdb {

// Writes `target`, which must not exist: the MANIFEST `source`, cut behind its last whole record,
// and edits that drop every column family but those in `keep`. The default one cannot be dropped:
// if it is not kept, its files are taken out of it, and its log number is set behind `newest_wal`,
// so that recovery leaves out what write-ahead logs hold of it.
//
// Returns the state of the new MANIFEST. The caller syncs the file.
ManifestState keep_column_families(const std::filesystem::path& source,
                                   const std::filesystem::path& target,
                                   const std::set<std::uint32_t>& keep, std::uint64_t newest_wal);

}  // namespace kumo::rocksdb
