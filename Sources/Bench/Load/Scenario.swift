/// What load to make: chats of one size, senders in each, and when they send.
public struct Scenario: Sendable, Equatable {
    public enum Pace: Sendable, Equatable {
        /// Open loop: messages a second over all chats, each at its scheduled time, whether or not earlier ones have
        /// arrived. Latency counts from the scheduled time, so a stall is felt by all that it delays.
        case rate(Double)
        /// Closed loop at saturation: this many messages of each chat are under way, which is until every device has it.
        case window(Int)
    }

    public var name: String
    public var chats: Int
    public var membersPerChat: Int
    public var sendersPerChat = 1
    public var pace: Pace
    public var textBytes = 200
    public var warmUpMs = 2000
    public var durationMs = 10_000

    public init(_ name: String, chats: Int, membersPerChat: Int, pace: Pace) {
        self.name = name
        self.chats = chats
        self.membersPerChat = membersPerChat
        self.pace = pace
    }

    public var devices: Int { chats * membersPerChat }

    /// The rows of quality.md that are about delivery.
    public static let saturation = Scenario("fan-out at saturation", chats: 10, membersPerChat: 100, pace: .window(32))
    public static let fanOut = Scenario("fan-out at 20,000/s", chats: 10, membersPerChat: 100, pace: .rate(200))
    public static var pairs: Scenario {
        var scenario = Scenario("1:1 at 2,000 messages/s", chats: 500, membersPerChat: 2, pace: .rate(2000))
        scenario.sendersPerChat = 2
        return scenario
    }
}
