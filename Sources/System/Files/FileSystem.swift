internal import CLinux
internal import Glibc

extension File {
    /// The whole content. A file larger than `maxBytes` throws `tooLarge`.
    public static func contents(of path: String, maxBytes: Int = 1 << 30) throws(SystemError) -> [UInt8] {
        let file = try File(path)
        let size = try file.size
        guard size <= maxBytes else {
            throw SystemError(.tooLarge, "read", on: path, message: "\(size) bytes, more than \(maxBytes)")
        }
        // Files in /proc have no size and are read to their end.
        if size > 0 { return try file.read(at: 0, count: Int(size)) }
        var bytes: [UInt8] = []
        while bytes.count <= maxBytes {
            let part = try file.read(at: Int64(bytes.count), count: 16 << 10)
            if part.isEmpty { return bytes }
            bytes += part
        }
        throw SystemError(.tooLarge, "read", on: path, message: "more than \(maxBytes) bytes")
    }

    /// The content as text; bytes that are not UTF-8 become replacement characters.
    public static func text(of path: String, maxBytes: Int = 64 << 20) throws(SystemError) -> String {
        String(decoding: try contents(of: path, maxBytes: maxBytes), as: UTF8.self)
    }

    /// Replaces a file so that whoever reads it, also after a crash at any moment, finds the old content or the new one
    /// and nothing between: a file beside it is written, brought to disk and renamed over it, and the directory too is
    /// brought to disk.
    public static func replaceAtomically(_ path: String, with contents: [UInt8], permissions: UInt32 = 0o644)
        throws(SystemError)
    {
        let temporary = "\(path).new-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        do throws(SystemError) {
            let file = try File(temporary, .write, create: .exclusive, permissions: permissions)
            try file.write(contents, at: 0)
            try file.synchronize()
            try File.rename(temporary, to: path)
        } catch {
            try? File.remove(temporary)
            throw error
        }
        try Directory.synchronize(Directory.parent(of: path))
    }

    public static func replaceAtomically(_ path: String, with text: String, permissions: UInt32 = 0o644)
        throws(SystemError)
    {
        try replaceAtomically(path, with: Array(text.utf8), permissions: permissions)
    }

    public static func rename(_ path: String, to other: String) throws(SystemError) {
        _ = try retry("rename", path) { unsafe Glibc.rename(path, other) }
    }

    /// Removes a file. That it is missing is an error (`notFound`), which callers for whom it is none ignore.
    public static func remove(_ path: String) throws(SystemError) {
        _ = try retry("remove", path) { unsafe unlink(path) }
    }

    public static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    public static func isExecutable(_ path: String) -> Bool { unsafe access(path, X_OK) == 0 }

    public static func setOwner(_ path: String, user: UInt32, group: UInt32) throws(SystemError) {
        _ = try retry("chown", path) { unsafe chown(path, user, group) }
    }
}

public enum Directory {
    /// The names in a directory, sorted, without `.` and `..`.
    public static func list(_ path: String) throws(SystemError) -> [String] {
        guard let directory = unsafe opendir(path) else { throw SystemError.last("list", on: path) }
        defer { _ = unsafe closedir(directory) }
        var names: [String] = []
        while true {
            Glibc.errno = 0
            guard let entry = unsafe readdir(directory) else {
                if Glibc.errno != 0 { throw SystemError.last("list", on: path) }
                return names.sorted()
            }
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                unsafe tuple.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
    }

    public static func isDirectory(_ path: String) -> Bool {
        var status = stat()
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
    }

    /// Makes a directory and those above it that are missing.
    public static func create(_ path: String, permissions: UInt32 = 0o755) throws(SystemError) {
        if unsafe mkdir(path, mode_t(permissions)) == 0 { return }
        switch Glibc.errno {
        case EEXIST where isDirectory(path): return
        case ENOENT where parent(of: path) != path:
            try create(parent(of: path), permissions: permissions)
            // Another process may have been faster.
            if unsafe mkdir(path, mode_t(permissions)) == 0 || isDirectory(path) { return }
            throw SystemError.last("create directory", on: path)
        default: throw SystemError.last("create directory", on: path)
        }
    }

    /// Makes a directory with a name of its own in the system's place for temporary files.
    public static func createTemporary(prefix: String = "fanout") throws(SystemError) -> String {
        let base = Environment["TMPDIR"] ?? "/tmp"
        var template = Array("\(base)/\(prefix)-XXXXXX".utf8CString)
        let made = unsafe template.withUnsafeMutableBufferPointer { buffer in
            guard let start = buffer.baseAddress else { return false }
            return unsafe mkdtemp(start) != nil
        }
        guard made else { throw SystemError.last("create directory", on: "\(base)/\(prefix)-XXXXXX") }
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Removes a directory with all that is in it; symbolic links are removed, not followed.
    public static func removeAll(_ path: String) throws(SystemError) {
        for name in try list(path) {
            let inner = "\(path)/\(name)"
            var status = stat()
            if unsafe lstat(inner, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
                try removeAll(inner)
            } else {
                try File.remove(inner)
            }
        }
        _ = try retry("remove directory", path) { unsafe rmdir(path) }
    }

    /// Brings the names in a directory to disk: after a file was made, renamed or removed in it.
    public static func synchronize(_ path: String) throws(SystemError) {
        let file = try File(path)
        _ = try retry("fsync", path) { fsync(file.descriptor) }
    }

    /// The directory that a path is in.
    public static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Bytes that an unprivileged process may still write there, and the file system's size.
    public static func space(at path: String) throws(SystemError) -> (availableBytes: UInt64, totalBytes: UInt64) {
        var status = statvfs()
        guard unsafe statvfs(path, &status) == 0 else { throw SystemError.last("statvfs", on: path) }
        return (UInt64(status.f_bavail) * UInt64(status.f_frsize), UInt64(status.f_blocks) * UInt64(status.f_frsize))
    }
}
