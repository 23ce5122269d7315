/// Everything that can go wrong in the broker, as one closed set of codes with the evidence.
///
/// `malformed` means the peer broke the protocol: its connection is closed with one log line. `protocolError` is an
/// answer the Kafka protocol has a number for. The rest concern the data directory and reach the operator.
public struct BrokerError: Error, CustomStringConvertible {
    public enum Code: Sendable, Equatable {
        /// Bytes that no client of the protocol would send.
        case malformed
        /// A request that the protocol refuses with an error code of its own.
        case protocolError(ErrorCode)
        /// A read or write of the data directory failed.
        case storage
        /// Another process has the data directory.
        case dataDirectoryInUse
        /// A file of the data directory that recovery cannot explain.
        case corrupt
        /// The listen address is not loopback and `--insecure-listen` was not given, or it cannot be bound.
        case listen
    }

    public let code: Code
    public let message: String
    public let cause: (any Error)?

    public init(_ code: Code, _ message: String, cause: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.cause = cause
    }

    static func malformed(_ message: String) -> BrokerError { BrokerError(.malformed, message) }

    static func refused(_ code: ErrorCode, _ message: String = "") -> BrokerError {
        BrokerError(.protocolError(code), message)
    }

    public var description: String {
        guard let cause else { return message }
        return "\(message): \(cause)"
    }

    /// The number a client sees when this error answers its request.
    var protocolCode: ErrorCode {
        switch code {
        case .protocolError(let code): code
        case .malformed: .invalidRequest
        case .storage: .kafkaStorageError
        case .corrupt: .corruptMessage
        case .dataDirectoryInUse, .listen: .unknownServerError
        }
    }
}
