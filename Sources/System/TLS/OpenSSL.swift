internal import COpenSSL
internal import CLinux
internal import Glibc

enum OpenSSL {
    // Macros with casts, which Swift does not import.
    static let ignoreUnexpectedEnd: UInt64 = 1 << 7
    static let noRenegotiation: UInt64 = 1 << 30
    static let noCompression: UInt64 = 1 << 17
    static let publicKey: Int32 = 0x86
    static let keyPair: Int32 = 0x87

    /// The oldest error that OpenSSL recorded on this thread, which is the cause of those behind it. Clears them.
    static func error(_ operation: String, on subject: String = "") -> SystemError {
        let number = ERR_get_error()
        ERR_clear_error()
        guard number != 0 else { return SystemError(.tls, operation, on: subject, message: "unknown OpenSSL error") }
        // A file that cannot be opened is reported with the kernel's number.
        if number & (1 << 31) != 0 {
            return SystemError(errno: Int32(truncatingIfNeeded: number & 0x7fff_ffff), operation, on: subject)
        }
        return SystemError(.tls, operation, on: subject, message: text(number))
    }

    static func text(_ number: UInt) -> String {
        if let reason = unsafe ERR_reason_error_string(number) { return unsafe String(cString: reason) }
        return "OpenSSL error \(String(number, radix: 16))"
    }
}
