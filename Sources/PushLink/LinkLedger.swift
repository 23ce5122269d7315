public import Wire

/// What one instance knows of its links: which of them owns each partition, what was asked of whom, and so what each may
/// be believed. The chat server and the simulation that verifies it both act on this value; the sessions' own streams are
/// `SessionFeed`s.
public struct LinkLedger<Link: Hashable> {
    private var owners = OwnerTable<Link>()
    private var lastRequest: UInt32 = 0
    private var registrations: [UInt32: (link: Link, partition: Int32, sessions: [SessionNumber])] = [:]
    private var lookUps: [UInt32: (link: Link, session: SessionNumber)] = [:]

    /// A question that may be put to a link.
    public struct Question: Equatable {
        public let link: Link
        public let request: UInt32
    }

    /// What ends with a link.
    public struct Loss {
        /// How far the link's stream had come in each partition that it owned: where the sessions there resume.
        public var partitions: [Int32: Cursor?] = [:]
        /// Sessions whose look-up will not be answered.
        public var lookUps: [SessionNumber] = []
    }

    public init() {}

    // MARK: Owners

    /// Zero until the first claim has told it.
    public var partitionCount: Int32 { owners.partitionCount }
    public func partition(of user: UserID) -> Int32? { owners.partition(of: user) }
    public func owner(of partition: Int32) -> Link? { owners.owner(of: partition) }
    public func owner(of user: UserID) -> Link? { owners.partition(of: user).flatMap { owners.owner(of: $0) } }
    public func isOwner(_ link: Link, of partition: Int32) -> Bool { owners.isOwner(link, of: partition) }

    /// After `.accepted` the sessions of the partition lose their owner, if they had one, and all are registered anew.
    public mutating func claim(
        _ claim: PartitionClaim, partitionCount: Int32, by link: Link
    ) -> OwnerTable<Link>.Outcome {
        let outcome = owners.claim(claim, partitionCount: partitionCount, by: link)
        if case .accepted = outcome { forgetRegistrations(in: claim.partition) }
        return outcome
    }

    /// The link gives these up; answers those that were its own.
    public mutating func release(_ partitions: [Int32], by link: Link) -> Loss {
        var loss = Loss()
        for partition in partitions {
            guard case .some(let heard) = owners.release(partition, by: link) else { continue }
            loss.partitions[partition] = .some(heard)
            forgetRegistrations(in: partition)
        }
        return loss
    }

    /// The link has ended.
    public mutating func remove(_ link: Link) -> Loss {
        var loss = Loss()
        for (partition, heard) in owners.remove(link) { loss.partitions[partition] = .some(heard) }
        registrations = registrations.filter { $0.value.link != link }
        for (request, lookUp) in lookUps where lookUp.link == link {
            lookUps[request] = nil
            loss.lookUps.append(lookUp.session)
        }
        return loss
    }

    private mutating func forgetRegistrations(in partition: Int32) {
        registrations = registrations.filter { $0.value.partition != partition }
    }

    /// A batch or progress report has come from a link; answers whether it owns the partition, so that it counts.
    public mutating func heard(_ cursor: Cursor, of partition: Int32, from link: Link) -> Bool {
        owners.heard(cursor, of: partition, from: link)
    }

    // MARK: Questions and answers

    private mutating func ask(_ link: Link) -> Question {
        lastRequest &+= 1
        if lastRequest == FillRequest.unasked { lastRequest = 1 }
        return Question(link: link, request: lastRequest)
    }

    /// Sessions are named to the partition's owner, if there is one.
    public mutating func register(_ sessions: [SessionNumber], in partition: Int32) -> Question? {
        guard let link = owner(of: partition) else { return nil }
        let question = ask(link)
        registrations[question.request] = (link, partition, sessions)
        return question
    }

    /// Whose registration this answers: nobody's when it comes from another link than was asked, or when the partition has
    /// been claimed anew since.
    public mutating func registered(_ request: UInt32, in partition: Int32, by link: Link) -> [SessionNumber] {
        guard let asked = registrations[request], asked.link == link, asked.partition == partition else { return [] }
        registrations[request] = nil
        return asked.sessions
    }

    /// Something missed is asked of the partition's owner. The session's feed knows the answer by the request.
    public mutating func fill(in partition: Int32) -> Question? { owner(of: partition).map { ask($0) } }

    /// The stored cursor of a session's device is asked of the owner of its user.
    public mutating func lookUp(_ session: SessionNumber, of user: UserID) -> Question? {
        guard let link = owner(of: user) else { return nil }
        let question = ask(link)
        lookUps[question.request] = (link, session)
        return question
    }

    public mutating func lookedUp(_ request: UInt32, by link: Link) -> SessionNumber? {
        guard let asked = lookUps[request], asked.link == link else { return nil }
        lookUps[request] = nil
        return asked.session
    }
}
