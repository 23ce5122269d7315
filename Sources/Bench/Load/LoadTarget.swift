public import System
public import Wire

/// The system under load: where it is, how to become anybody in it.
public struct LoadTarget: Sendable {
    public var address: SocketAddress
    public var postgres: String
    private let tokens: TokenSource

    public init(address: SocketAddress, postgres: String, tokens: @escaping TokenSource) {
        self.address = address
        self.postgres = postgres
        self.tokens = tokens
    }

    /// A token for a bot, whom the rate limit does not hold back: a bench measures the pipeline, not its brakes.
    public func token(for user: UserID) -> String { tokens(user, "bot") }
}

extension SocketAddress {
    /// Where the device of this number connects from. Tens of thousands of connections from one address of this machine to
    /// one port cost the kernel more in looking for a free port than all else that a connection does.
    func source(_ number: Int) -> SocketAddress? {
        host.hasPrefix("127.") ? .numeric(host: "127.0.0.\(2 + number % 64)", port: 0) : nil
    }
}

/// Makes a token for a user with these scopes, good for as long as any bench runs.
public typealias TokenSource = @Sendable (_ user: UserID, _ scopes: String) -> String
