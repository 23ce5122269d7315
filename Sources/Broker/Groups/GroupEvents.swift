/// What goes into the group coordinator and what comes out of it.

/// Names one request that waits for its answer. The shell that owns the connections knows what stands behind it.
typealias Ticket = UInt64

/// An assignment strategy that a member can follow, with the subscription it would follow it with.
struct GroupProtocol: Equatable {
    var name: String
    var metadata: [UInt8]
}

struct JoinRequest: Equatable {
    var group: String
    var member = ""
    var instance: String?
    var clientID = ""
    var clientHost = ""
    var sessionTimeoutMs: Int
    var rebalanceTimeoutMs: Int
    var protocolType: String
    var protocols: [GroupProtocol]
    /// From JoinGroup 4 on a newcomer is told its id first and joins with it, so that a lost answer leaves no ghost.
    var knowsMemberIDRequired = true
    /// From JoinGroup 9 on a returning static leader can be told that the assignment stands.
    var knowsSkipAssignment = true
}

struct JoinedMember: Equatable {
    var member: String
    var instance: String?
    var metadata: [UInt8]
}

struct JoinResult: Equatable {
    var error = ErrorCode.none
    var generation: Int32 = -1
    var protocolType: String?
    var protocolName: String?
    var leader = ""
    var skipAssignment = false
    var member = ""
    /// Everyone's subscription, for the leader only.
    var members: [JoinedMember] = []
}

struct SyncRequest: Equatable {
    var group: String
    var generation: Int32
    var member: String
    var instance: String?
    var protocolType: String?
    var protocolName: String?
    var assignments: [String: [UInt8]] = [:]
}

struct SyncResult: Equatable {
    var error = ErrorCode.none
    var protocolType: String?
    var protocolName: String?
    var assignment: [UInt8] = []
}

/// Who a request claims to be: a member by its id, or a static member by its instance id.
struct MemberIdentity: Equatable {
    var member: String
    var instance: String?
}

enum GroupAction: Equatable {
    case joined(Ticket, JoinResult)
    case synced(Ticket, SyncResult)
    /// Make the group as it is now durable; the answers behind it in the same list wait for that.
    case store(GroupSnapshot)
}

/// What of a group survives a restart: enough for its members to go on without a rebalance.
struct GroupSnapshot: Equatable {
    struct Member: Equatable {
        var id: String
        var instance: String?
        var clientID: String
        var clientHost: String
        var sessionTimeoutMs: Int
        var rebalanceTimeoutMs: Int
        var metadata: [UInt8]
        var assignment: [UInt8]
    }

    var group: String
    var generation: Int32
    var protocolType: String
    var protocolName: String?
    var leader: String?
    var members: [Member]
}
