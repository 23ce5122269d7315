public import KafkaClient
public import PushLink
public import Runtime
public import System
public import Wire

/// What `fanout delivery` is started with.
public struct DeliveryConfiguration: Sendable {
    public var kafka: KafkaConfiguration
    public var names = Names()
    public var name: String
    /// The name is the same after a restart: then the group gives the worker its partitions back without a rebalance.
    public var isMemberStatic = false
    public var epoch: UInt64
    public var secret: LinkSecret
    /// For links to instances beyond this machine.
    public var tls: TLSContext?
    /// Where devices' cursors are stored; without it, only what this process remembers is known.
    public var postgres: String?
    public var windowBytesMax = 64 << 20
    public var windowAgeMs: Int64 = 15 * 60_000
    public var presenceGraceMs: Int64 = 25_000
    public var pushWindowMs: Int64 = 1_000
    public var hearingMs: Int64 = 3_000
    /// As short as the brokers allow, down to `ConsumerOptions.sessionTimeoutMsWanted`, if it is not said.
    public var sessionTimeoutMs: Int?
    /// Whether a static member keeps its partitions when it is stopped, for one of its name that is started soon.
    public var keepsPartitions = false
    public var log = Log.none
    public var metrics = Metrics()
    public var clock: any Clock

    public init(
        kafka: KafkaConfiguration, name: String, epoch: UInt64, secret: LinkSecret, clock: any Clock = SystemClock()
    ) {
        self.kafka = kafka
        self.name = name
        self.epoch = epoch
        self.secret = secret
        self.clock = clock
    }
}

/// Why a worker cannot go on.
public struct DeliveryError: Error, Sendable, CustomStringConvertible {
    public enum Code: String, Sendable {
        case topics
        case kafka
        /// Another worker has joined the group under this one's name.
        case nameTaken
        case system
    }

    public let code: Code
    public let message: String

    init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    init(_ error: KafkaError) { self.init(error.isNameTaken ? .nameTaken : .kafka, "\(error)") }

    public var description: String { message }
}
