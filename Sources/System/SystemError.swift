internal import Glibc

/// What the operating system refused, with the evidence: which operation, on what, and why.
public struct SystemError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A closed set that callers can switch over; `errno` keeps the exact number for those who need it.
    public enum Code: String, Sendable, CaseIterable {
        case notFound, exists, permissionDenied, notDirectory, isDirectory, notEmpty
        case noSpace, readOnly, tooManyFiles, noMemory
        case addressInUse, addressUnavailable, nameNotResolved
        case connectionRefused, connectionReset, connectionClosed, unreachable
        case timedOut, wouldBlock, cancelled
        case locked
        case invalidArgument, tooLarge, corrupt
        case tls
        case other
    }

    public let code: Code
    /// What was tried, as a verb: `open`, `connect`, `fdatasync`.
    public let operation: String
    /// On what: a path, a `host:port`, a program's name. Empty when there is nothing to name.
    public let subject: String
    /// The number the kernel gave, or 0 when the error is not the kernel's.
    public let errno: Int32
    public let message: String

    public init(_ code: Code, _ operation: String, on subject: String = "", message: String) {
        self.code = code
        self.operation = operation
        self.subject = subject
        self.errno = 0
        self.message = message
    }

    public init(errno number: Int32, _ operation: String, on subject: String = "") {
        self.code = Code(errno: number)
        self.operation = operation
        self.subject = subject
        self.errno = number
        self.message = SystemError.text(number)
    }

    /// The same error, saying what it happened to.
    func on(_ subject: String) -> SystemError {
        SystemError(code: code, operation: operation, subject: subject, errno: errno, message: message)
    }

    private init(code: Code, operation: String, subject: String, errno: Int32, message: String) {
        self.code = code
        self.operation = operation
        self.subject = subject
        self.errno = errno
        self.message = message
    }

    /// The error of the call that has just failed on this thread.
    static func last(_ operation: String, on subject: String = "") -> SystemError {
        SystemError(errno: Glibc.errno, operation, on: subject)
    }

    public var description: String {
        subject.isEmpty ? "\(operation): \(message)" : "\(operation) \(subject): \(message)"
    }

    private static func text(_ number: Int32) -> String {
        unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { buffer in
            guard let start = buffer.baseAddress, unsafe strerror_r(number, start, 256) == 0 else {
                return "error \(number)"
            }
            return unsafe String(cString: start)
        }
    }
}

extension SystemError.Code {
    init(errno number: Int32) {
        switch number {
        case ENOENT, ESRCH, ENXIO: self = .notFound
        case EEXIST: self = .exists
        case EACCES, EPERM: self = .permissionDenied
        case ENOTDIR: self = .notDirectory
        case EISDIR: self = .isDirectory
        case ENOTEMPTY: self = .notEmpty
        case ENOSPC, EDQUOT: self = .noSpace
        case EROFS: self = .readOnly
        case EMFILE, ENFILE: self = .tooManyFiles
        case ENOMEM, ENOBUFS: self = .noMemory
        case EADDRINUSE: self = .addressInUse
        case EADDRNOTAVAIL: self = .addressUnavailable
        case ECONNREFUSED: self = .connectionRefused
        case ECONNRESET, ECONNABORTED: self = .connectionReset
        case EPIPE, ENOTCONN, ESHUTDOWN: self = .connectionClosed
        case EHOSTUNREACH, ENETUNREACH, ENETDOWN, EHOSTDOWN: self = .unreachable
        case ETIMEDOUT: self = .timedOut
        case EAGAIN: self = .wouldBlock
        case ECANCELED: self = .cancelled
        case EINVAL, EBADF, ENOTSOCK, EAFNOSUPPORT: self = .invalidArgument
        case EFBIG, EMSGSIZE, ENAMETOOLONG, E2BIG: self = .tooLarge
        default: self = .other
        }
    }
}
