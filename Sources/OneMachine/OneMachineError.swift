/// Why the system cannot run on this machine: one line that says what to do.
public struct OneMachineError: Error, Equatable, CustomStringConvertible {
    public enum Code: Sendable {
        case directory, inUse, otherVersion, missingServer, port, notReady, stopped, failed
    }

    public let code: Code
    public let description: String

    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
