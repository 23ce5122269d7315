internal import CLinux
internal import Glibc

/// An open file: the one owner of its descriptor. Reads and writes name their place, so threads need no lock for it.
public struct File: ~Copyable, Sendable {
    public enum Access: Sendable { case read, write, readWrite }

    public enum Creation: Sendable {
        /// The file must exist.
        case never
        case ifMissing
        /// The file must not exist.
        case exclusive
        /// An existing file is emptied.
        case truncate
    }

    public let path: String
    public let descriptor: Int32

    public init(
        _ path: String, _ access: Access = .read, create: Creation = .never, permissions: UInt32 = 0o644
    ) throws(SystemError) {
        var flags = Int32(O_CLOEXEC)
        switch access {
        case .read: flags |= O_RDONLY
        case .write: flags |= O_WRONLY
        case .readWrite: flags |= O_RDWR
        }
        switch create {
        case .never: break
        case .ifMissing: flags |= O_CREAT
        case .exclusive: flags |= O_CREAT | O_EXCL
        case .truncate: flags |= O_CREAT | O_TRUNC
        }
        let descriptor = try retry("open", path) { unsafe fanout_open(path, flags, mode_t(permissions)) }
        self.path = path
        self.descriptor = descriptor
    }

    deinit { _ = Glibc.close(descriptor) }

    // MARK: Reading

    public var size: Int64 {
        get throws(SystemError) {
            var status = stat()
            guard unsafe fstat(descriptor, &status) == 0 else { throw SystemError.last("stat", on: path) }
            return Int64(status.st_size)
        }
    }

    /// When it was last written, in milliseconds since the epoch.
    public var modifiedMs: Int64 {
        get throws(SystemError) {
            var status = stat()
            guard unsafe fstat(descriptor, &status) == 0 else { throw SystemError.last("stat", on: path) }
            return Int64(status.st_mtim.tv_sec) * 1000 + Int64(status.st_mtim.tv_nsec) / 1_000_000
        }
    }

    /// Reads up to `count` bytes at `offset`; fewer only at the file's end.
    public func read(at offset: Int64, count: Int) throws(SystemError) -> [UInt8] {
        var failure: SystemError?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            do throws(SystemError) {
                filled = try unsafe fill(UnsafeMutableRawBufferPointer(buffer), at: offset)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Reads up to `count` bytes at `offset` and appends them, without clearing memory for them first. How many bytes were
    /// read: fewer than asked only at the end.
    public func read(at offset: Int64, count: Int, appendingTo bytes: inout [UInt8]) throws(SystemError) -> Int {
        var result: Result<Int, SystemError> = .success(0)
        bytes.append(addingCapacity: count) { output in
            unsafe output.withUnsafeMutableBufferPointer { buffer, used in
                do throws(SystemError) {
                    let room = unsafe UnsafeMutableRawBufferPointer(
                        rebasing: UnsafeMutableRawBufferPointer(buffer)[used..<used + count])
                    let filled = try unsafe fill(room, at: offset)
                    used += filled
                    result = .success(filled)
                } catch {
                    result = .failure(error)
                }
            }
        }
        return try result.get()
    }

    /// Reads at `offset` into memory that the caller keeps, of any type whose values are their bytes. How many bytes were
    /// read: fewer than asked only at the end.
    public func read<Element: BitwiseCopyable>(
        at offset: Int64, elements span: inout MutableSpan<Element>
    ) throws(SystemError) -> Int {
        var result: Result<Int, SystemError> = .success(0)
        unsafe span.withUnsafeMutableBytes { buffer in
            do throws(SystemError) {
                result = .success(try unsafe fill(buffer, at: offset))
            } catch {
                result = .failure(error)
            }
        }
        return try result.get()
    }

    private func fill(_ buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        var filled = 0
        while filled < buffer.count {
            let count = try retry("read", path) {
                unsafe pread(
                    descriptor, buffer.baseAddress?.advanced(by: filled), buffer.count - filled, off_t(offset) + filled)
            }
            if count == 0 { break }
            filled += count
        }
        return filled
    }

    // MARK: Writing

    /// Writes all of the bytes at `offset`.
    public func write(_ bytes: Span<UInt8>, at offset: Int64) throws(SystemError) {
        var result: Result<Void, SystemError> = .success(())
        unsafe bytes.withUnsafeBytes { buffer in
            do throws(SystemError) {
                try unsafe put(buffer, at: offset)
            } catch {
                result = .failure(error)
            }
        }
        try result.get()
    }

    public func write(_ bytes: [UInt8], at offset: Int64) throws(SystemError) {
        try write(bytes.span, at: offset)
    }

    /// The same for elements of any type whose values are their bytes.
    public func write<Element: BitwiseCopyable>(
        elements: Span<Element>, at offset: Int64
    ) throws(SystemError) {
        var result: Result<Void, SystemError> = .success(())
        unsafe elements.withUnsafeBytes { buffer in
            do throws(SystemError) {
                try unsafe put(buffer, at: offset)
            } catch {
                result = .failure(error)
            }
        }
        try result.get()
    }

    private func put(_ buffer: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) {
        var sent = 0
        while sent < buffer.count {
            sent += try retry("write", path) {
                unsafe pwrite(
                    descriptor, buffer.baseAddress?.advanced(by: sent), buffer.count - sent, off_t(offset) + sent)
            }
        }
    }

    /// Cuts the file off, or extends it with zeros.
    public func truncate(to size: Int64) throws(SystemError) {
        _ = try retry("truncate", path) { ftruncate(descriptor, off_t(size)) }
    }

    /// Reserves disk space beyond the end without changing the size, so that later writes neither fail for want of
    /// space nor make `synchronize` write block lists. File systems that cannot are left alone.
    public func preallocate(offset: Int64, count: Int64) throws(SystemError) {
        guard fanout_fallocate_keep_size(descriptor, off_t(offset), off_t(count)) != 0 else { return }
        guard Glibc.errno != EOPNOTSUPP, Glibc.errno != ENOSYS else { return }
        throw SystemError.last("preallocate", on: path)
    }

    /// The first place from `offset` on where nothing has been written, though the blocks may be reserved. The end of the file
    /// where all is written, or the file system cannot tell.
    public func firstUnwritten(from offset: Int64) throws(SystemError) -> Int64 {
        Int64(try retry("seek", path) { fanout_seek_hole(descriptor, off_t(offset)) })
    }

    /// Returns when what was written is on the disk (`fdatasync`: the bytes and the size, not the times). After a
    /// failure the kernel may have dropped the bytes: they must be written again, it is no use to synchronize again.
    public func synchronize() throws(SystemError) {
        _ = try retry("fdatasync", path) { fdatasync(descriptor) }
    }

    // MARK: Locking

    /// Takes the file's lock (`flock`) for as long as this file is open. A lock held by another process, or through
    /// another descriptor, throws `locked` with `holder` in the message.
    public func lock(holder: String = "another process") throws(SystemError) {
        guard flock(descriptor, LOCK_EX | LOCK_NB) != 0 else { return }
        if Glibc.errno == EWOULDBLOCK {
            throw SystemError(.locked, "lock", on: path, message: "\(holder) holds it")
        }
        throw SystemError.last("lock", on: path)
    }
}

/// A file with several users, which closes when the last one lets go: what a stream sends from.
public final class SharedFile: Sendable {
    public let file: File

    public init(_ file: consuming File) {
        self.file = file
    }

    /// `sendfile`: what was sent, 0 at the file's end, or -1 with `errno`.
    func send(to socket: Int32, offset: Int64, count: Int) -> Int {
        var place = off_t(offset)
        return unsafe sendfile(socket, file.descriptor, &place, count)
    }

    /// `pread` with the same results.
    func read(into buffer: UnsafeMutablePointer<UInt8>, offset: Int64, count: Int) -> Int {
        unsafe pread(file.descriptor, buffer, count, off_t(offset))
    }
}

/// Repeats a call that a signal interrupted, and throws its error.
func retry<Count: SignedInteger>(_ operation: String, _ path: String, _ call: () -> Count) throws(SystemError) -> Count
{
    while true {
        let result = call()
        if result >= 0 { return result }
        if Glibc.errno != EINTR { throw SystemError.last(operation, on: path) }
    }
}
