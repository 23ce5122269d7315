public import Wire

/// What a chat server says on an open link.
public enum InstanceMessage: Hashable, Sendable {
    /// A claim was made with a term below one already seen: the worker has lost the partition without knowing.
    case refused(partition: Int32, term: UInt64)
    /// Sessions of one partition. `isLast` ends the answer to a claim: from then on the worker knows every session
    /// that this instance has in the partition.
    case register(request: UInt32, partition: Int32, isLast: Bool, [SessionRegistration])
    case unregister(partition: Int32, [SessionNumber])
    /// So many batches of this link have been queued to their sessions, counted from its start.
    case acknowledge(batches: UInt64)
    case fill(FillRequest)
    case watch([UserID])
    case unwatch([UserID])
    case storeCursors([DeviceCursor])
    case lookUpCursor(request: UInt32, user: UserID, device: DeviceID)
    case heartbeat
    case goodbye(LinkError)
}

extension InstanceMessage {
    func encode(into output: inout [UInt8]) {
        switch self {
        case .refused(let partition, let term):
            let frame = output.beginFrame(.refused)
            output.appendLittle(partition)
            output.appendLittle(term)
            output.endFrame(frame)
        case .register(let request, let partition, let isLast, let sessions):
            let frame = output.beginFrame(.register)
            output.appendLittle(request)
            output.appendLittle(partition)
            output.append(isLast ? 1 : 0)
            output.appendLittle(UInt32(sessions.count))
            for session in sessions { session.encode(into: &output) }
            output.endFrame(frame)
        case .unregister(let partition, let sessions):
            let frame = output.beginFrame(.unregister)
            output.appendLittle(partition)
            output.appendLittle(UInt32(sessions.count))
            for session in sessions { output.appendLittle(session) }
            output.endFrame(frame)
        case .acknowledge(let batches):
            let frame = output.beginFrame(.acknowledge)
            output.appendLittle(batches)
            output.endFrame(frame)
        case .fill(let fill):
            let frame = output.beginFrame(.fill)
            output.appendLittle(fill.request)
            output.appendLittle(fill.partition)
            output.appendLittle(fill.session)
            output.append(fill.after)
            output.appendLittle(fill.through)
            output.appendLittle(fill.bytesMax)
            output.endFrame(frame)
        case .watch(let users):
            output.appendUsers(users, .watch)
        case .unwatch(let users):
            output.appendUsers(users, .unwatch)
        case .storeCursors(let cursors):
            let frame = output.beginFrame(.storeCursors)
            output.appendLittle(UInt32(cursors.count))
            for cursor in cursors {
                output.append(cursor.user)
                output.append(cursor.device)
                output.append(cursor.cursor)
            }
            output.endFrame(frame)
        case .lookUpCursor(let request, let user, let device):
            let frame = output.beginFrame(.lookUpCursor)
            output.appendLittle(request)
            output.append(user)
            output.append(device)
            output.endFrame(frame)
        case .heartbeat:
            output.endFrame(output.beginFrame(.heartbeat))
        case .goodbye(let error):
            output.appendGoodbye(error)
        }
    }

    static func decode(_ frame: Frame, in buffer: borrowing [UInt8]) throws(LinkError) -> InstanceMessage {
        var body = BodyReader(buffer.span.extracting(frame.body), base: frame.body.lowerBound)
        let message: InstanceMessage
        switch frame.type {
        case .acknowledge:
            message = .acknowledge(batches: try body.integer())
        case .refused:
            message = .refused(partition: try body.partition(), term: try body.integer())
        case .register:
            let request = try body.integer(UInt32.self)
            let partition = try body.partition()
            let isLast = try body.flag()
            let count = try body.count(each: SessionRegistration.byteCountMin)
            var sessions: [SessionRegistration] = []
            sessions.reserveCapacity(count)
            for _ in 0..<count { sessions.append(try body.session()) }
            message = .register(request: request, partition: partition, isLast: isLast, sessions)
        case .unregister:
            let partition = try body.partition()
            let count = try body.count(each: 4)
            var sessions: [SessionNumber] = []
            sessions.reserveCapacity(count)
            for _ in 0..<count { sessions.append(try body.integer()) }
            message = .unregister(partition: partition, sessions)
        case .fill:
            let fill = FillRequest(
                request: try body.integer(), partition: try body.partition(), session: try body.integer(),
                after: try body.cursor(),
                through: try body.integer(), bytesMax: try body.integer())
            message = .fill(fill)
        case .watch:
            message = .watch(try body.users())
        case .unwatch:
            message = .unwatch(try body.users())
        case .storeCursors:
            let count = try body.count(each: 48)
            var cursors: [DeviceCursor] = []
            cursors.reserveCapacity(count)
            for _ in 0..<count {
                cursors.append(DeviceCursor(user: try body.id(), device: try body.id(), cursor: try body.cursor()))
            }
            message = .storeCursors(cursors)
        case .lookUpCursor:
            message = .lookUpCursor(request: try body.integer(), user: try body.id(), device: try body.id())
        case .heartbeat:
            message = .heartbeat
        case .goodbye:
            message = .goodbye(try body.goodbye())
        default:
            throw LinkError(.protocolViolation, "a \(frame.type) frame from an instance")
        }
        try body.end()
        return message
    }
}

extension SessionRegistration {
    /// Number, user, device, since when, whether a cursor follows, how many chats follow.
    static let byteCountMin = 4 + 16 + 16 + 8 + 1 + 2

    func encode(into output: inout [UInt8]) {
        output.appendLittle(number)
        output.append(user)
        output.append(device)
        output.appendLittle(openedUs)
        output.append(after == nil ? 0 : 1)
        if let after { output.append(after) }
        let chats = largeChats.prefix(LinkLimits.chatsPerSessionMax)
        output.appendLittle(UInt16(chats.count))
        for chat in chats { output.append(chat) }
    }
}

extension [UInt8] {
    fileprivate mutating func appendUsers(_ users: [UserID], _ type: FrameType) {
        let frame = beginFrame(type)
        appendLittle(UInt32(users.count))
        for user in users { append(user) }
        endFrame(frame)
    }
}

extension BodyReader {
    @_lifetime(self: copy self)
    mutating func flag() throws(LinkError) -> Bool {
        switch try integer(UInt8.self) {
        case 0: return false
        case 1: return true
        case let other: throw LinkError(.protocolViolation, "\(other) as yes or no")
        }
    }

    @_lifetime(self: copy self)
    mutating func users() throws(LinkError) -> [UserID] {
        let count = try count(each: 16)
        var users: [UserID] = []
        users.reserveCapacity(count)
        for _ in 0..<count { users.append(try id()) }
        return users
    }

    @_lifetime(self: copy self)
    mutating func session() throws(LinkError) -> SessionRegistration {
        let number = try integer(UInt32.self)
        let user = try id(UserID.self)
        let device = try id(DeviceID.self)
        let openedUs = try integer(Int64.self)
        let after = try flag() ? try cursor() : nil
        let chatCount = Int(try integer(UInt16.self))
        guard chatCount <= LinkLimits.chatsPerSessionMax else {
            throw LinkError(.protocolViolation, "a session with \(chatCount) large chats")
        }
        var chats: [ChatID] = []
        chats.reserveCapacity(chatCount)
        for _ in 0..<chatCount { chats.append(try id()) }
        return SessionRegistration(
            number: number, user: user, device: device, openedUs: openedUs, after: after, largeChats: chats)
    }
}
