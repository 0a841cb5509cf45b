-- The whole schema after all migrations, as pg_dump writes it; `ansible-playbook playbooks/schema.yml` keeps it current.
-- For reading and comparing only: the migrations create the schema. Left out are the ledger, privileges that provisioning
-- gives the read-only role, publications, subscriptions, user mappings and settings of the database. Everything belongs to
-- the role that runs this file.

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: AccountStatus; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."AccountStatus" AS ENUM (
    'ACTIVE',
    'PENDING_VERIFICATION',
    'VERIFIED',
    'REJECTED',
    'LOCKED'
);


--
-- Name: AuditActionType; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."AuditActionType" AS ENUM (
    'CONNECTION_REQUEST',
    'CONNECTION_ACCEPT',
    'CONNECTION_REVOKE',
    'PERMISSION_CHANGE',
    'PRESCRIPTION_CREATE',
    'PRESCRIPTION_UPDATE',
    'PRESCRIPTION_CONFIRM',
    'PRESCRIPTION_RETAKE',
    'DOSE_TAKEN',
    'DOSE_SKIPPED',
    'DOSE_MISSED',
    'DATA_ACCESS',
    'NOTIFICATION_SENT',
    'SUBSCRIPTION_CHANGE'
);


--
-- Name: ConnectionStatus; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."ConnectionStatus" AS ENUM (
    'PENDING',
    'ACCEPTED',
    'REVOKED'
);


--
-- Name: DoseEventStatus; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."DoseEventStatus" AS ENUM (
    'DUE',
    'TAKEN_ON_TIME',
    'TAKEN_LATE',
    'MISSED',
    'SKIPPED'
);


--
-- Name: Gender; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."Gender" AS ENUM (
    'MALE',
    'FEMALE',
    'OTHER'
);


--
-- Name: Language; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."Language" AS ENUM (
    'KHMER',
    'ENGLISH'
);


--
-- Name: NotificationType; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."NotificationType" AS ENUM (
    'CONNECTION_REQUEST',
    'PRESCRIPTION_UPDATE',
    'MISSED_DOSE_ALERT',
    'URGENT_PRESCRIPTION_CHANGE',
    'FAMILY_ALERT'
);


--
-- Name: PermissionLevel; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."PermissionLevel" AS ENUM (
    'NOT_ALLOWED',
    'REQUEST',
    'SELECTED',
    'ALLOWED'
);


--
-- Name: PrescriptionStatus; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."PrescriptionStatus" AS ENUM (
    'DRAFT',
    'ACTIVE',
    'PAUSED',
    'INACTIVE'
);


--
-- Name: SubscriptionTier; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."SubscriptionTier" AS ENUM (
    'FREEMIUM',
    'PREMIUM',
    'FAMILY_PREMIUM'
);


--
-- Name: Theme; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."Theme" AS ENUM (
    'LIGHT',
    'DARK'
);


--
-- Name: TimePeriod; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."TimePeriod" AS ENUM (
    'DAYTIME',
    'NIGHT'
);


--
-- Name: UserRole; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public."UserRole" AS ENUM (
    'PATIENT',
    'DOCTOR',
    'FAMILY_MEMBER'
);


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: audit_logs; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.audit_logs (
    id uuid NOT NULL,
    "actorId" uuid,
    "actorRole" public."UserRole",
    "actionType" public."AuditActionType" NOT NULL,
    "resourceType" character varying(100) NOT NULL,
    "resourceId" uuid,
    details jsonb,
    "ipAddress" character varying(45),
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);


--
-- Name: connections; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.connections (
    id uuid NOT NULL,
    "initiatorId" uuid NOT NULL,
    "recipientId" uuid NOT NULL,
    status public."ConnectionStatus" DEFAULT 'PENDING'::public."ConnectionStatus" NOT NULL,
    "permissionLevel" public."PermissionLevel" DEFAULT 'ALLOWED'::public."PermissionLevel" NOT NULL,
    "requestedAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "acceptedAt" timestamp(3) with time zone,
    "revokedAt" timestamp(3) with time zone,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL
);


--
-- Name: dose_events; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.dose_events (
    id uuid NOT NULL,
    "prescriptionId" uuid NOT NULL,
    "medicationId" uuid NOT NULL,
    "patientId" uuid NOT NULL,
    "scheduledTime" timestamp(3) with time zone NOT NULL,
    "timePeriod" public."TimePeriod" NOT NULL,
    "reminderTime" character varying(10),
    status public."DoseEventStatus" DEFAULT 'DUE'::public."DoseEventStatus" NOT NULL,
    "takenAt" timestamp(3) with time zone,
    "skipReason" text,
    "wasOffline" boolean DEFAULT false NOT NULL,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL
);


--
-- Name: family_members; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.family_members (
    id uuid NOT NULL,
    "subscriptionId" uuid NOT NULL,
    "memberId" uuid NOT NULL,
    "addedAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);


--
-- Name: meal_time_preferences; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.meal_time_preferences (
    id uuid NOT NULL,
    "userId" uuid NOT NULL,
    "morningMeal" character varying(20),
    "afternoonMeal" character varying(20),
    "nightMeal" character varying(20),
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL
);


--
-- Name: medications; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.medications (
    id uuid NOT NULL,
    "prescriptionId" uuid NOT NULL,
    "rowNumber" integer NOT NULL,
    "medicineName" character varying(255) NOT NULL,
    "medicineNameKhmer" character varying(255),
    "imageUrl" text,
    "morningDosage" jsonb,
    "daytimeDosage" jsonb,
    "nightDosage" jsonb,
    frequency character varying(100),
    timing character varying(100),
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL
);


--
-- Name: notifications; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.notifications (
    id uuid NOT NULL,
    "recipientId" uuid NOT NULL,
    type public."NotificationType" NOT NULL,
    title character varying(255) NOT NULL,
    message text NOT NULL,
    data jsonb,
    "isRead" boolean DEFAULT false NOT NULL,
    "readAt" timestamp(3) with time zone,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);


--
-- Name: prescription_versions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.prescription_versions (
    id uuid NOT NULL,
    "prescriptionId" uuid NOT NULL,
    "versionNumber" integer NOT NULL,
    "authorId" uuid,
    "changeReason" text,
    "medicationsSnapshot" jsonb NOT NULL,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);


--
-- Name: prescriptions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.prescriptions (
    id uuid NOT NULL,
    "patientId" uuid NOT NULL,
    "doctorId" uuid,
    "patientName" character varying(200) NOT NULL,
    "patientGender" public."Gender" NOT NULL,
    "patientAge" integer NOT NULL,
    symptoms text NOT NULL,
    status public."PrescriptionStatus" DEFAULT 'DRAFT'::public."PrescriptionStatus" NOT NULL,
    "currentVersion" integer DEFAULT 1 NOT NULL,
    "isUrgent" boolean DEFAULT false NOT NULL,
    "urgentReason" text,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL
);


--
-- Name: subscriptions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.subscriptions (
    id uuid NOT NULL,
    "userId" uuid NOT NULL,
    tier public."SubscriptionTier" DEFAULT 'FREEMIUM'::public."SubscriptionTier" NOT NULL,
    "storageQuota" bigint DEFAULT '5368709120'::bigint NOT NULL,
    "storageUsed" bigint DEFAULT 0 NOT NULL,
    "expiresAt" timestamp(3) with time zone,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL
);


--
-- Name: users; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.users (
    id uuid NOT NULL,
    role public."UserRole" NOT NULL,
    "firstName" character varying(100),
    "lastName" character varying(100),
    "fullName" character varying(200),
    "phoneNumber" character varying(20) NOT NULL,
    email character varying(255),
    "passwordHash" character varying(255) NOT NULL,
    "pinCodeHash" character varying(255),
    gender public."Gender",
    "dateOfBirth" date,
    "idCardNumber" character varying(50),
    language public."Language" DEFAULT 'KHMER'::public."Language" NOT NULL,
    theme public."Theme" DEFAULT 'LIGHT'::public."Theme" NOT NULL,
    "hospitalClinic" character varying(255),
    specialty character varying(100),
    "licenseNumber" character varying(100),
    "licensePhotoUrl" text,
    "accountStatus" public."AccountStatus" DEFAULT 'ACTIVE'::public."AccountStatus" NOT NULL,
    "failedLoginAttempts" integer DEFAULT 0 NOT NULL,
    "lockedUntil" timestamp(3) with time zone,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL
);


--
-- Name: audit_logs audit_logs_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_logs
    ADD CONSTRAINT audit_logs_pkey PRIMARY KEY (id);


--
-- Name: connections connections_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.connections
    ADD CONSTRAINT connections_pkey PRIMARY KEY (id);


--
-- Name: dose_events dose_events_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.dose_events
    ADD CONSTRAINT dose_events_pkey PRIMARY KEY (id);


--
-- Name: family_members family_members_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.family_members
    ADD CONSTRAINT family_members_pkey PRIMARY KEY (id);


--
-- Name: meal_time_preferences meal_time_preferences_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.meal_time_preferences
    ADD CONSTRAINT meal_time_preferences_pkey PRIMARY KEY (id);


--
-- Name: medications medications_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.medications
    ADD CONSTRAINT medications_pkey PRIMARY KEY (id);


--
-- Name: notifications notifications_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.notifications
    ADD CONSTRAINT notifications_pkey PRIMARY KEY (id);


--
-- Name: prescription_versions prescription_versions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.prescription_versions
    ADD CONSTRAINT prescription_versions_pkey PRIMARY KEY (id);


--
-- Name: prescriptions prescriptions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.prescriptions
    ADD CONSTRAINT prescriptions_pkey PRIMARY KEY (id);


--
-- Name: subscriptions subscriptions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.subscriptions
    ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (id);


--
-- Name: users users_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);


--
-- Name: audit_logs_actionType_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "audit_logs_actionType_idx" ON public.audit_logs USING btree ("actionType");


--
-- Name: audit_logs_actorId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "audit_logs_actorId_idx" ON public.audit_logs USING btree ("actorId");


--
-- Name: audit_logs_createdAt_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "audit_logs_createdAt_idx" ON public.audit_logs USING btree ("createdAt");


--
-- Name: audit_logs_resourceId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "audit_logs_resourceId_idx" ON public.audit_logs USING btree ("resourceId");


--
-- Name: connections_initiatorId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "connections_initiatorId_idx" ON public.connections USING btree ("initiatorId");


--
-- Name: connections_initiatorId_recipientId_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX "connections_initiatorId_recipientId_key" ON public.connections USING btree ("initiatorId", "recipientId");


--
-- Name: connections_recipientId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "connections_recipientId_idx" ON public.connections USING btree ("recipientId");


--
-- Name: connections_status_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX connections_status_idx ON public.connections USING btree (status);


--
-- Name: dose_events_patientId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "dose_events_patientId_idx" ON public.dose_events USING btree ("patientId");


--
-- Name: dose_events_patientId_scheduledTime_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "dose_events_patientId_scheduledTime_idx" ON public.dose_events USING btree ("patientId", "scheduledTime");


--
-- Name: dose_events_prescriptionId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "dose_events_prescriptionId_idx" ON public.dose_events USING btree ("prescriptionId");


--
-- Name: dose_events_scheduledTime_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "dose_events_scheduledTime_idx" ON public.dose_events USING btree ("scheduledTime");


--
-- Name: dose_events_status_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX dose_events_status_idx ON public.dose_events USING btree (status);


--
-- Name: family_members_subscriptionId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "family_members_subscriptionId_idx" ON public.family_members USING btree ("subscriptionId");


--
-- Name: family_members_subscriptionId_memberId_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX "family_members_subscriptionId_memberId_key" ON public.family_members USING btree ("subscriptionId", "memberId");


--
-- Name: meal_time_preferences_userId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "meal_time_preferences_userId_idx" ON public.meal_time_preferences USING btree ("userId");


--
-- Name: meal_time_preferences_userId_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX "meal_time_preferences_userId_key" ON public.meal_time_preferences USING btree ("userId");


--
-- Name: medications_prescriptionId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "medications_prescriptionId_idx" ON public.medications USING btree ("prescriptionId");


--
-- Name: notifications_createdAt_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "notifications_createdAt_idx" ON public.notifications USING btree ("createdAt");


--
-- Name: notifications_recipientId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "notifications_recipientId_idx" ON public.notifications USING btree ("recipientId");


--
-- Name: notifications_recipientId_isRead_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "notifications_recipientId_isRead_idx" ON public.notifications USING btree ("recipientId", "isRead");


--
-- Name: prescription_versions_prescriptionId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "prescription_versions_prescriptionId_idx" ON public.prescription_versions USING btree ("prescriptionId");


--
-- Name: prescription_versions_prescriptionId_versionNumber_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX "prescription_versions_prescriptionId_versionNumber_key" ON public.prescription_versions USING btree ("prescriptionId", "versionNumber");


--
-- Name: prescriptions_doctorId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "prescriptions_doctorId_idx" ON public.prescriptions USING btree ("doctorId");


--
-- Name: prescriptions_patientId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "prescriptions_patientId_idx" ON public.prescriptions USING btree ("patientId");


--
-- Name: prescriptions_patientId_status_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "prescriptions_patientId_status_idx" ON public.prescriptions USING btree ("patientId", status);


--
-- Name: prescriptions_status_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX prescriptions_status_idx ON public.prescriptions USING btree (status);


--
-- Name: subscriptions_tier_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX subscriptions_tier_idx ON public.subscriptions USING btree (tier);


--
-- Name: subscriptions_userId_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "subscriptions_userId_idx" ON public.subscriptions USING btree ("userId");


--
-- Name: subscriptions_userId_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX "subscriptions_userId_key" ON public.subscriptions USING btree ("userId");


--
-- Name: users_accountStatus_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "users_accountStatus_idx" ON public.users USING btree ("accountStatus");


--
-- Name: users_email_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX users_email_idx ON public.users USING btree (email);


--
-- Name: users_email_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX users_email_key ON public.users USING btree (email);


--
-- Name: users_idCardNumber_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX "users_idCardNumber_key" ON public.users USING btree ("idCardNumber");


--
-- Name: users_licenseNumber_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX "users_licenseNumber_key" ON public.users USING btree ("licenseNumber");


--
-- Name: users_phoneNumber_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX "users_phoneNumber_idx" ON public.users USING btree ("phoneNumber");


--
-- Name: users_phoneNumber_key; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX "users_phoneNumber_key" ON public.users USING btree ("phoneNumber");


--
-- Name: users_role_idx; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX users_role_idx ON public.users USING btree (role);


--
-- Name: audit_logs audit_logs_actorId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.audit_logs
    ADD CONSTRAINT "audit_logs_actorId_fkey" FOREIGN KEY ("actorId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE SET NULL;


--
-- Name: connections connections_initiatorId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.connections
    ADD CONSTRAINT "connections_initiatorId_fkey" FOREIGN KEY ("initiatorId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: connections connections_recipientId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.connections
    ADD CONSTRAINT "connections_recipientId_fkey" FOREIGN KEY ("recipientId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: dose_events dose_events_medicationId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.dose_events
    ADD CONSTRAINT "dose_events_medicationId_fkey" FOREIGN KEY ("medicationId") REFERENCES public.medications(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: dose_events dose_events_patientId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.dose_events
    ADD CONSTRAINT "dose_events_patientId_fkey" FOREIGN KEY ("patientId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: dose_events dose_events_prescriptionId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.dose_events
    ADD CONSTRAINT "dose_events_prescriptionId_fkey" FOREIGN KEY ("prescriptionId") REFERENCES public.prescriptions(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: family_members family_members_memberId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.family_members
    ADD CONSTRAINT "family_members_memberId_fkey" FOREIGN KEY ("memberId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: family_members family_members_subscriptionId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.family_members
    ADD CONSTRAINT "family_members_subscriptionId_fkey" FOREIGN KEY ("subscriptionId") REFERENCES public.subscriptions(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: meal_time_preferences meal_time_preferences_userId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.meal_time_preferences
    ADD CONSTRAINT "meal_time_preferences_userId_fkey" FOREIGN KEY ("userId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: medications medications_prescriptionId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.medications
    ADD CONSTRAINT "medications_prescriptionId_fkey" FOREIGN KEY ("prescriptionId") REFERENCES public.prescriptions(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: notifications notifications_recipientId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.notifications
    ADD CONSTRAINT "notifications_recipientId_fkey" FOREIGN KEY ("recipientId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: prescription_versions prescription_versions_authorId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.prescription_versions
    ADD CONSTRAINT "prescription_versions_authorId_fkey" FOREIGN KEY ("authorId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE SET NULL;


--
-- Name: prescription_versions prescription_versions_prescriptionId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.prescription_versions
    ADD CONSTRAINT "prescription_versions_prescriptionId_fkey" FOREIGN KEY ("prescriptionId") REFERENCES public.prescriptions(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: prescriptions prescriptions_doctorId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.prescriptions
    ADD CONSTRAINT "prescriptions_doctorId_fkey" FOREIGN KEY ("doctorId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE SET NULL;


--
-- Name: prescriptions prescriptions_patientId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.prescriptions
    ADD CONSTRAINT "prescriptions_patientId_fkey" FOREIGN KEY ("patientId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: subscriptions subscriptions_userId_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.subscriptions
    ADD CONSTRAINT "subscriptions_userId_fkey" FOREIGN KEY ("userId") REFERENCES public.users(id) ON UPDATE CASCADE ON DELETE CASCADE;
