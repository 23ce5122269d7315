import Wire

/// What a Delivery worker says on an open link.
public enum WorkerMessage: Hashable, Sendable {
    /// The worker owns these partitions from now on, of `partitionCount` in all: send me their sessions and watches.
    case claim(partitionCount: Int32, [PartitionClaim])
    /// These are mine no longer; sessions keep waiting until another worker claims them.
    case release([Int32])
    /// The sessions of that request get every event after `liveAfter` pushed; what lies before is theirs to fill.
    case registered(request: UInt32, partition: Int32, liveAfter: Cursor)
    /// The session's device has opened another one on another instance since; the worker has forgotten this one.
    case takenOver(partition: Int32, SessionNumber)
    case batch(Batch)
    case progress([PartitionProgress])
    case page(FillPage)
    /// Everything after `windowStart` can be filled from the window.
    case cannotFill(request: UInt32, session: SessionNumber, FillRefusal, windowStart: Cursor)
    case presence([PresenceNotice])
    case storedCursor(request: UInt32, StoredCursor)
    case heartbeat
    case goodbye(LinkError)
}

extension WorkerMessage {
    /// Appends the frame. Batches and pages carry bytes and are written by `appendBatch` and `PageWriter`.
    func encode(into output: inout [UInt8]) {
        switch self {
        case .claim(let partitionCount, let claims):
            let frame = output.beginFrame(.claim)
            output.appendLittle(partitionCount)
            output.appendLittle(UInt32(claims.count))
            for claim in claims {
                output.appendLittle(claim.partition)
                output.appendLittle(claim.term)
            }
            output.endFrame(frame)
        case .release(let partitions):
            let frame = output.beginFrame(.release)
            output.appendLittle(UInt32(partitions.count))
            for partition in partitions { output.appendLittle(partition) }
            output.endFrame(frame)
        case .registered(let request, let partition, let liveAfter):
            let frame = output.beginFrame(.registered)
            output.appendLittle(request)
            output.appendLittle(partition)
            output.append(liveAfter)
            output.endFrame(frame)
        case .takenOver(let partition, let session):
            let frame = output.beginFrame(.takenOver)
            output.appendLittle(partition)
            output.appendLittle(session)
            output.endFrame(frame)
        case .progress(let positions):
            let frame = output.beginFrame(.progress)
            output.appendLittle(UInt32(positions.count))
            for position in positions {
                output.appendLittle(position.partition)
                output.append(position.routed)
            }
            output.endFrame(frame)
        case .cannotFill(let request, let session, let reason, let windowStart):
            let frame = output.beginFrame(.cannotFill)
            output.appendLittle(request)
            output.appendLittle(session)
            output.append(reason.rawValue)
            output.append(windowStart)
            output.endFrame(frame)
        case .presence(let notices):
            let frame = output.beginFrame(.presence)
            output.appendLittle(UInt32(notices.count))
            for notice in notices {
                output.append(notice.user)
                output.append(notice.status.rawValue)
                output.appendLittle(notice.lastSeen)
            }
            output.endFrame(frame)
        case .storedCursor(let request, let stored):
            let frame = output.beginFrame(.storedCursor)
            output.appendLittle(request)
            switch stored {
            case .found(let cursor):
                output.append(1)
                output.append(cursor)
            case .none: output.append(0)
            case .unavailable: output.append(2)
            }
            output.endFrame(frame)
        case .heartbeat:
            output.endFrame(output.beginFrame(.heartbeat))
        case .goodbye(let error):
            output.appendGoodbye(error)
        case .batch, .page:
            preconditionFailure("a batch or page is written with its bytes")
        }
    }

    static func decode(_ frame: Frame, in buffer: borrowing [UInt8]) throws(LinkError) -> WorkerMessage {
        var body = BodyReader(buffer.span.extracting(frame.body), base: frame.body.lowerBound)
        let message: WorkerMessage
        switch frame.type {
        case .batch:
            message = .batch(try Batch.decode(&body))
        case .claim:
            let partitionCount = try body.integer(Int32.self)
            guard partitionCount > 0 else { throw LinkError(.protocolViolation, "\(partitionCount) partitions") }
            let count = try body.count(each: 12)
            var claims: [PartitionClaim] = []
            claims.reserveCapacity(count)
            for _ in 0..<count {
                let partition = try body.partition()
                guard partition < partitionCount else {
                    throw LinkError(.protocolViolation, "partition \(partition) of \(partitionCount)")
                }
                claims.append(PartitionClaim(partition: partition, term: try body.integer()))
            }
            message = .claim(partitionCount: partitionCount, claims)
        case .release:
            let count = try body.count(each: 4)
            var partitions: [Int32] = []
            partitions.reserveCapacity(count)
            for _ in 0..<count { partitions.append(try body.partition()) }
            message = .release(partitions)
        case .registered:
            message = .registered(
                request: try body.integer(), partition: try body.partition(), liveAfter: try body.cursor())
        case .takenOver:
            message = .takenOver(partition: try body.partition(), try body.integer())
        case .progress:
            let count = try body.count(each: 20)
            var positions: [PartitionProgress] = []
            positions.reserveCapacity(count)
            for _ in 0..<count {
                positions.append(PartitionProgress(partition: try body.partition(), routed: try body.cursor()))
            }
            message = .progress(positions)
        case .page:
            message = .page(try FillPage.decode(&body))
        case .cannotFill:
            let request = try body.integer(UInt32.self)
            let session = try body.integer(UInt32.self)
            message = .cannotFill(
                request: request, session: session, try body.value(FillRefusal.self), windowStart: try body.cursor())
        case .presence:
            let count = try body.count(each: 25)
            var notices: [PresenceNotice] = []
            notices.reserveCapacity(count)
            for _ in 0..<count {
                notices.append(
                    PresenceNotice(
                        user: try body.id(), status: try body.value(PresenceStatus.self),
                        lastSeen: try body.integer()))
            }
            message = .presence(notices)
        case .storedCursor:
            let request = try body.integer(UInt32.self)
            switch try body.integer(UInt8.self) {
            case 0: message = .storedCursor(request: request, .none)
            case 1: message = .storedCursor(request: request, .found(try body.cursor()))
            case 2: message = .storedCursor(request: request, .unavailable)
            case let other: throw LinkError(.protocolViolation, "\(other) as a stored cursor")
            }
        case .heartbeat:
            message = .heartbeat
        case .goodbye:
            message = .goodbye(try body.goodbye())
        default:
            throw LinkError(.protocolViolation, "a \(frame.type) frame from a worker")
        }
        try body.end()
        return message
    }
}

extension [UInt8] {
    mutating func appendGoodbye(_ error: LinkError) {
        let frame = beginFrame(.goodbye)
        append(error.code.rawValue)
        append(shortText: error.message)
        endFrame(frame)
    }
}

extension BodyReader {
    @_lifetime(self: copy self)
    mutating func goodbye() throws(LinkError) -> LinkError {
        let code = LinkError.Code(rawValue: try integer(UInt8.self)) ?? .closedByPeer
        return LinkError(code, try shortText())
    }
}
